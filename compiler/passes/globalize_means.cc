#include "common/status_macros.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/mean_as_sum.h"
#include "compiler/passes/pass.h"

namespace autosp {
// A mean over tokens is a sum over all tokens divided by their number. As a sum, every rank can add
// its own tokens; as a mean, it would become a mean of means.
//
//   before  %m = aten.mean.dim(%x, [1], false)            where dim 1 holds the sequence
//   after   %s = aten.sum.dim_IntList(%x, [1], false)
//           %m = aten.mul.Tensor(%s, 1 / size)
//
// Requires: sizes are the job's (resize-inputs).
absl::StatusOr<bool> GlobalizeMeans(Graph& graph, const PassContext& context) {
  ASSIGN_OR_RETURN(const GraphFactors factors, InferFactors(graph, context.roles));
  GraphRewriter rewriter(graph);
  for (const Node& node : rewriter.nodes()) {
    const bool is_mean = IsMean(node);
    const ValueId self = is_mean ? OperandsOf(node)[0] : ValueId{};
    bool over_roots = false;
    int64_t count = 1;
    if (is_mean) {
      const FactorDims self_dims = factors.Of(self);
      for (int64_t dim : ReducedDims(node, static_cast<int64_t>(self_dims.size()))) {
        count *= graph.type(self).sizes[dim].value;
        for (FactorVar factor : self_dims[dim]) {
          over_roots = over_roots || factors.table.IsPartOfRoot(factor);
        }
      }
    }
    if (!over_roots) {
      rewriter.Keep(node);
      continue;
    }
    ReplaceBySum(rewriter, node, self, count);
  }
  return rewriter.Finish();
}

}  // namespace autosp
