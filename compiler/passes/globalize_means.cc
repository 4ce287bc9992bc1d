#include <algorithm>

#include "common/status_macros.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"

namespace autosp {
namespace {

// The dimensions that a mean reduces, counted from the front.
std::vector<int64_t> ReducedDims(const Node& node, int64_t rank) {
  std::vector<int64_t> dims;
  const IntList* list = node.op == "aten.mean.dim" ? std::get_if<IntList>(&node.args[1]) : nullptr;
  if (list != nullptr) {
    for (const SymInt& dim : *list) dims.push_back(dim.value < 0 ? dim.value + rank : dim.value);
  }
  if (!dims.empty()) return dims;
  for (int64_t i = 0; i < rank; ++i) dims.push_back(i);
  return dims;
}

}  // namespace

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
    const bool is_mean = node.op == "aten.mean.dim" || node.op == "aten.mean.default";
    const ValueId self = is_mean ? OperandsOf(node)[0] : ValueId{};
    bool over_roots = false;
    int64_t count = 1;
    std::vector<int64_t> dims;
    if (is_mean) {
      const FactorDims self_dims = factors.Of(self);
      dims = ReducedDims(node, static_cast<int64_t>(self_dims.size()));
      for (int64_t dim : dims) {
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
    const TensorType result_type = graph.type(node.outputs[0]);
    ValueId input = self;
    if (graph.type(input).dtype != result_type.dtype) {
      TensorType cast = graph.type(input);
      cast.dtype = result_type.dtype;
      input = rewriter.EmitOne(node, "aten.to.dtype",
                               {input, result_type.dtype, false, false, None{}}, cast);
    }
    IntList dim_list(dims.begin(), dims.end());
    const bool keep = node.op == "aten.mean.dim" && node.args.size() > 2 &&
                      std::get_if<bool>(&node.args[2]) && std::get<bool>(node.args[2]);
    const ValueId sum = rewriter.EmitOne(node, "aten.sum.dim_IntList",
                                         {input, dim_list, keep, None{}}, result_type);
    const ValueId mean = rewriter.EmitOne(node, "aten.mul.Tensor",
                                          {sum, 1.0 / static_cast<double>(count)}, result_type);
    rewriter.Replace(node.outputs[0], mean);
  }
  return rewriter.Finish();
}

}  // namespace autosp
