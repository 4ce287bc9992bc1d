// Numbers of a graph that Python may have made of sizes, before torch.export saw them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compiler/passes/pass.h"

namespace autosp {

// Of a root that the archive has as a symbol nothing is folded: its numbers carry expressions.
// Requires: `graph` has the types of the export.
bool IsConstantAtExport(const Graph& graph, const GraphFactors& factors, FactorVar root);

struct FoldedSize {
  int64_t size = 0;
  std::string words;         // "the sequence length at export"
  bool is_batch = false;     // whose inverse and root are everybody's numbers
  bool is_less_one = false;  // made of a size that is there too
  bool is_product = false;
};

// The sizes at export that numbers may be made of, where the archive has them as constants and the
// job changes them. Requires: `graph` and `factors` are those of the exported sizes.
std::vector<FoldedSize> FindFoldedSizes(const Graph& graph, const GraphFactors& factors,
                                        const PassContext& context);

// `x.sum(1) * (1.0 / x.shape[1])` of a length that is a constant at export leaves the number
// 0.03125 in the graph, and nothing says that it was a length. Where the job has another length the
// number stays, and the model computes something else. A warning names the first numbers that may
// be one:
// - what meets positions, counts, sums or places of a dimension that changes (SizeLiterals),
// - what whole numbers are wrapped around or divided by (token ids % B),
// - numbers that are the length in any other place, and those that are as many as the tokens, and
// - factors of anything that are the length, its inverse, root or logarithm, or the same of
//   batch x length, and no size of the model itself (head_dim), and not round in any case (0.5).
// Another names those that are as large as a size, and cannot be told from it (EqualNumbers); where
// there are none either, it says that there may be some all the same, unless `is_warned`: a warning
// names what else may be made of the sizes.
//
// Requires: the graph has the sizes of the job, and its literals are those of the export.
void WarnOfFoldedSizes(const Graph& graph, const GraphFactors& factors,
                       const std::vector<TensorType>& old_types,
                       const std::vector<FoldedSize>& folded, bool is_warned,
                       const PassContext& context);

}  // namespace autosp
