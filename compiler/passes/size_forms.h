// Numbers that python may have made of a size.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace autosp {

bool IsNear(double a, double b);

// Numbers that people write: they say nothing of where they come from.
bool IsRound(double value);  // 0.25, 0.5, 1, 2, 4 and powers of ten
bool IsPlain(double value);  // without 0.25 and 4

// "1 / 32" if `value` is the size, its root, its logarithm, what makes a variance one without bias
// (32 / 31), or the inverse of one; else nothing.
std::optional<std::string> FormOf(double value, int64_t size);

// Also one more or less, the half, the square, the number of pairs, parts of a circle, and their
// inverses. Of sizes below 4, whose forms are everybody's numbers, only the size, one less, and
// their inverses.
std::optional<std::string> WideFormOf(double value, int64_t size);

// Whether a whole number is a size of this order: from an eighth to four times as many.
bool IsOfOrder(double value, int64_t size);

}  // namespace autosp
