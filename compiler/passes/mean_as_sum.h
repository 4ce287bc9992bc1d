// Sums and means over dimensions that are not all there, or not all valid, as sums that ranks add.
#pragma once

#include <cstdint>
#include <vector>

#include "compiler/passes/graph_rewriter.h"

namespace autosp {

// aten.mean.dim and aten.mean.default
bool IsMean(const Node& node);
// aten.sum.dim_IntList and aten.sum.default
bool IsSum(const Node& node);

// The dimensions that a sum or mean of a tensor of `rank` reduces, counted from the front.
std::vector<int64_t> ReducedDims(const Node& node, int64_t rank);

// Replaces the result of `mean` by the sum of `input` over the same dimensions divided by `count`.
// ATen rounds to bf16 or fp16 once, after the division: so does this, which adds up in fp32.
void ReplaceBySum(GraphRewriter& rewriter, const Node& mean, ValueId input, int64_t count);

// Replaces the result of `sum`, of bf16 or fp16, by the same sum in fp32, rounded. ATen has it so
// within one op; what ranks round before they add is another number.
void ReplaceByExactSum(GraphRewriter& rewriter, const Node& sum);

}  // namespace autosp
