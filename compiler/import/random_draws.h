// Draws of random numbers, which a plan makes the same for any number of ranks: a number is a
// function of the seed, the step, the draw and the global element. They are other numbers than
// PyTorch draws, of the same distribution.
//
// Where a uniform number is only compared with one, dropout draws (it has a kernel of its own, and
// nothing is kept). That is stochastic depth (DropPath), bernoulli of a number, and dropout of
// whole channels:
//
//   before  %r = aten.rand.default([2, 1, 1])            after  %o = aten.full.default([2, 1,
//   1], 1.0)
//           %s = aten.add.Tensor(%r, 0.9)                       %d = aten.dropout.default(%o, 0.1)
//           %m = aten.floor.default(%s)                         %m = aten.to.dtype(%d != 0, f32)
//
// Others are written by autosp.uniform: uniform, normal (Box and Muller 1958), exponential numbers,
// integers and bernoulli of tensors. Draws happen in validation too, as the graph says; dropouts do
// not. Each draw, dropout and attention that drops has a number, which tells its elements from
// those of others.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>

#include "absl/status/statusor.h"
#include "compiler/ir/graph.h"

namespace autosp {

// The random numbers of a node.
struct Draw {
  int64_t number = 0;        // normal numbers are made of this one's and the next one's
  bool is_mirrored = false;  // its uniform numbers are 1 - u
  bool is_compared = false;  // with a number alone, and not rounded to a half type before
};

struct GraphDraws {
  std::map<ValueId, Draw> by_result;  // of nodes as exported
  int64_t num_numbers = 0;
};

// Error: integers of too wide a range.
absl::StatusOr<GraphDraws> ExpandDraws(Graph& graph);

// The last argument of a dropout that draws in validation too.
inline constexpr std::string_view kAlwaysDraws = "always";

}  // namespace autosp
