// Ops that draw random numbers: each rank that runs one draws numbers of its own, so no plan with
// one equals one device. What a plan draws instead is a function of the seed, the step, the place
// in the graph and the element.
#pragma once

#include <string_view>

namespace autosp {

// `op` is "aten.normal_.default". Of every op that takes a generator, and of those that draw from
// the default one.
bool DrawsRandomNumbers(std::string_view op);

// autosp.uniform(like, number): f32 numbers between 0 and 1, neither of them, of the sizes of
// `like`, which itself is not read; in validation too. Draws and dropouts of a graph are numbered
// together (expand-dropout).
inline constexpr std::string_view kUniform = "autosp.uniform";

}  // namespace autosp
