// Numbers of a graph that are as large as a size that the job changes.
#pragma once

#include <vector>

#include "compiler/passes/folded_sizes.h"
#include "compiler/passes/pass.h"
#include "compiler/passes/size_dependence.h"
#include "compiler/passes/size_literals.h"

namespace autosp {

// Those that nothing else tells of, as they meet data alone and everybody writes them: x * 2 of a
// batch of 2, a row of two numbers, a shift by two tokens, blocks of two; forms of them such as
// S // 2; a half where it may make a mean of a sum; what counts over tokens are compared with. In
// the order of the graph, one for each node. Squares, exponents and shares of dropout are left out.
//
// `sizes`: at export, of what the job changes. Requires: the graph has the sizes of the job, and
// its literals are those of the export.
std::vector<SizeLiteral> FindEqualNumbers(const Graph& graph, const GraphFactors& factors,
                                          const std::vector<TensorType>& old_types,
                                          const SizeDependence& dependence,
                                          const std::vector<FoldedSize>& sizes,
                                          const PassContext& context);

}  // namespace autosp
