// Removes what export adds and training does not need, after writes have been made functional.
//
//   identities   alias, detach, clone, lift_fresh_copy, dropout that drops nothing, and conversions
//                to the type that a value has: uses read the operand
//   conversions  to.device, to.dtype_layout and to.other become to.dtype (a rank has one device)
//   dead nodes   nodes of which no result reaches an output
//
// An identity that stops a gradient (detach, or alias under no_grad, of a value that carries one)
// stays. So does one whose result has other strides.
#pragma once

#include "compiler/ir/graph.h"

namespace autosp {

// Ensures: every value of the graph is an input or the result of a node, in that order.
void RemoveNoise(Graph& graph);

}  // namespace autosp
