// One name for each op: ATen has many under several, and torch.export keeps the one that a model
// uses.
//
//   names   max.other is maximum, concat is cat, swapaxes is transpose, x & 1 is x & a tensor:
//           renamed, as the arguments are the same
//   views   numpy_T, mT, movedim, narrow, view_as and others are a transpose, a permutation, a
//   slice
//           or a reshape to sizes that the graph knows
//   empty   zeros: any number may stand there
//   outer   a product of a column and a row
//
// Rules, passes and the checker need to know one form of each.
#pragma once

#include "compiler/ir/graph.h"

namespace autosp {

// Leaves alone what has no other form here.
void UnifyOpNames(Graph& graph);

}  // namespace autosp
