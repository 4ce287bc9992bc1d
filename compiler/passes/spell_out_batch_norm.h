// Norms of channels by statistics of the whole batch, or by statistics that are given.
#pragma once

#include "compiler/passes/graph_rewriter.h"
#include "compiler/rules/infer_factors.h"

namespace autosp {

bool IsBatchNorm(const Node& node);

// Replaces a norm whose statistics ranks take together, since it has the batch or tokens, by means,
// and one by statistics that are given by what it does to each element. Leaves any other alone.
// Requires: IsBatchNorm.
bool SpellOutBatchNorm(GraphRewriter& rewriter, const Node& node, const GraphFactors& factors);

}  // namespace autosp
