// Ops that draw random numbers: each rank that runs one draws numbers of its own, so no plan with
// one equals one device. What a plan draws instead is a function of the seed, the step, the place
// in the graph and the element.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace autosp {

// `op` is "aten.normal_.default". Of every op that takes a generator, and of those that draw from
// the default one.
bool DrawsRandomNumbers(std::string_view op);

// autosp.uniform(like, number): f32 numbers between 0 and 1, neither of them, of the sizes of
// `like`, which itself is not read; in validation too.
inline constexpr std::string_view kUniform = "autosp.uniform";

// Which argument of an op is the number of its draw: of autosp.uniform, and of dropout and
// attention as exported, to which import appends it. Draws and dropouts of a graph are numbered
// together.
std::optional<size_t> DrawNumberArgument(std::string_view op);

}  // namespace autosp
