// The numbers that nodes compute with, as far as the archive has them as literals.
#pragma once

#include <optional>
#include <vector>

#include "compiler/ir/graph.h"

namespace autosp {

// None where the archive computes it, or where the argument is no number.
std::optional<double> LiteralArgument(const Node& node, size_t arg);

// Of parameters that are a number by the op's signature (Scalar, float, or a tensor that is one):
// dimensions, sizes and flags are none, nor is what the op takes by default. Of ops of our own,
// what is written with a point.
std::vector<double> LiteralNumbers(const Node& node);

bool IsComparison(const Node& node);  // lt, le, gt, ge, eq, ne
bool IsEquality(const Node& node);    // eq, ne
// Clamps, and comparisons but for equality: a size less one is a bound as well.
bool IsBound(const Node& node);
// What leaves of whole numbers those below a number, or how often it fits.
bool Wraps(const Node& node);
bool Floors(const Node& node);  // how often it fits
// Of what is filled with one number: that.
std::optional<size_t> FillArgument(const Node& node);
// Zeros, ranges and other results that take nothing from a tensor, not even a shape.
bool MakesItsSizes(const Node& node);
// Products and quotients.
bool Scales(const Node& node);

}  // namespace autosp
