// Means over dimensions that are not all there, or not all valid, as sums divided by a number.
#pragma once

#include <cstdint>
#include <vector>

#include "compiler/passes/graph_rewriter.h"

namespace autosp {

// aten.mean.dim and aten.mean.default
bool IsMean(const Node& node);

// The dimensions that a mean of a tensor of `rank` reduces, counted from the front.
std::vector<int64_t> ReducedDims(const Node& mean, int64_t rank);

// Replaces the result of `mean` by the sum of `input` over the same dimensions, in the type of the
// result, divided by `count`.
void ReplaceBySum(GraphRewriter& rewriter, const Node& mean, ValueId input, int64_t count);

}  // namespace autosp
