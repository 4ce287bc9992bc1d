// Numbers of a graph that Python may have made of sizes, before torch.export saw them.
#pragma once

#include "compiler/passes/pass.h"

namespace autosp {

// `x.sum(1) * (1.0 / x.shape[1])` of a length that is a constant at export leaves the number
// 0.03125 in the graph, and nothing says that it was a length. Where the job has another length the
// number stays, and the model computes something else. This warns of numbers that are the exported
// sequence length, its inverse, its root, or the same of batch x length, and no size of the model
// itself (head_dim), and not round in any case (0.5, 0.01).
//
// Requires: `factors` are those of the exported sizes.
void WarnOfFoldedSizes(const Graph& graph, const GraphFactors& factors, const PassContext& context);

}  // namespace autosp
