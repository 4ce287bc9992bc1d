// Draws of random numbers that a plan can make the same for any number of ranks, written by dropout
// (expand-dropout numbers it, and its mask depends on the global element):
//
//   before  %r = aten.rand.default([2, 1, 1])            after  %o = aten.full.default([2, 1,
//   1], 1.0)
//           %s = aten.add.Tensor(%r, 0.9)                       %d = aten.dropout.default(%o, 0.1)
//           %m = aten.floor.default(%s)                         %m = aten.to.dtype(%d != 0, f32)
//
// That is stochastic depth (DropPath). Others: bernoulli of a number, and comparisons of uniform
// numbers with one. Draws happen in validation too, as the graph says. What is drawn otherwise is
// refused.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "compiler/ir/graph.h"

namespace autosp {

// Error: random numbers of another use.
absl::Status ExpandDraws(Graph& graph);

// The last argument of a dropout that draws in validation too.
inline constexpr std::string_view kAlwaysDraws = "always";

}  // namespace autosp
