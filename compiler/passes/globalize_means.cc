#include "common/status_macros.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/mean_as_sum.h"
#include "compiler/passes/pass.h"

namespace autosp {
namespace {

bool ReducesRoots(const GraphFactors& factors, const Node& node) {
  const FactorDims dims = factors.Of(OperandsOf(node)[0]);
  for (int64_t dim : ReducedDims(node, static_cast<int64_t>(dims.size()))) {
    for (FactorVar factor : dims[dim]) {
      if (factors.table.IsPartOfRoot(factor)) return true;
    }
  }
  return false;
}

int64_t NumReduced(const Graph& graph, const Node& node) {
  const TensorType& type = graph.type(OperandsOf(node)[0]);
  int64_t count = 1;
  for (int64_t dim : ReducedDims(node, type.rank())) count *= type.sizes[dim].value;
  return count;
}

// A loss that is rounded at its very end is told as it was before: a number in bf16 has two digits.
// Its gradient is the same.
bool KeepDigitsOfLosses(Graph& graph) {
  const std::vector<int32_t> definer = DefiningNodes(graph);
  bool changed = false;
  for (size_t i = 0; i < graph.NumResults(); ++i) {
    ValueId& output = graph.outputs[i];
    const int32_t index = definer[output.index];
    if (index < 0 || graph.type(output).rank() > 0) continue;
    const Node& node = graph.nodes[index];
    if (node.op != "aten.to.dtype" || node.no_grad || !IsHalf(graph.type(output).dtype)) continue;
    const ValueId exact = OperandsOf(node)[0];
    if (graph.type(exact).dtype != DType::kF32) continue;
    output = exact;
    changed = true;
  }
  return changed;
}

}  // namespace

// A mean over tokens is a sum over all tokens divided by their number. As a sum, every rank can add
// its own tokens; as a mean, it would become a mean of means. Sums of bf16 and fp16 are taken in
// fp32, so that ranks add what is not yet rounded.
//
//   before  %m = aten.mean.dim(%x, [1], false)            where dim 1 holds the sequence
//   after   %s = aten.sum.dim_IntList(%x, [1], false)
//           %m = aten.mul.Tensor(%s, 1 / size)
//
// A loss is returned before it is rounded to one of those types.
//
// Requires: sizes are the job's (resize-inputs).
absl::StatusOr<bool> GlobalizeMeans(Graph& graph, const PassContext& context) {
  ASSIGN_OR_RETURN(const GraphFactors factors, InferFactors(graph, context.roles));
  GraphRewriter rewriter(graph);
  for (const Node& node : rewriter.nodes()) {
    const bool is_half_sum = IsSum(node) && IsHalf(graph.type(node.outputs[0]).dtype);
    if (!(is_half_sum || IsMean(node)) || !ReducesRoots(factors, node)) {
      rewriter.Keep(node);
    } else if (is_half_sum) {
      ReplaceByExactSum(rewriter, node);
    } else {
      ReplaceBySum(rewriter, node, OperandsOf(node)[0], NumReduced(graph, node));
    }
  }
  const bool has_sums = rewriter.Finish();
  return KeepDigitsOfLosses(graph) || has_sums;
}

}  // namespace autosp
