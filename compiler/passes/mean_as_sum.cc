#include "compiler/passes/mean_as_sum.h"

#include "compiler/ir/argument_access.h"

namespace autosp {

bool IsMean(const Node& node) {
  return node.op == "aten.mean.dim" || node.op == "aten.mean.default";
}

std::vector<int64_t> ReducedDims(const Node& mean, int64_t rank) {
  std::vector<int64_t> dims;
  const IntList* list = mean.op == "aten.mean.dim" ? std::get_if<IntList>(&mean.args[1]) : nullptr;
  if (list != nullptr) {
    for (const SymInt& dim : *list) dims.push_back(dim.value < 0 ? dim.value + rank : dim.value);
  }
  if (!dims.empty()) return dims;
  for (int64_t i = 0; i < rank; ++i) dims.push_back(i);
  return dims;
}

void ReplaceBySum(GraphRewriter& rewriter, const Node& mean, ValueId input, int64_t count) {
  const Graph& graph = rewriter.graph();
  const TensorType result_type = graph.type(mean.outputs[0]);
  input = CastTo(mean, input, result_type.dtype, rewriter);
  const std::vector<int64_t> dims = ReducedDims(mean, graph.type(input).rank());
  const bool keep = mean.op == "aten.mean.dim" && FlagArgument(mean.args, 2).value_or(false);
  const ValueId sum =
      rewriter.EmitOne(mean, "aten.sum.dim_IntList",
                       {input, IntList(dims.begin(), dims.end()), keep, None{}}, result_type);
  rewriter.Replace(mean.outputs[0],
                   rewriter.EmitOne(mean, "aten.mul.Tensor",
                                    {sum, 1.0 / static_cast<double>(count)}, result_type));
}

}  // namespace autosp
