#include "compiler/passes/mean_as_sum.h"

#include "compiler/ir/argument_access.h"

namespace autosp {
namespace {

// The sum of `input` over the dimensions that `node` reduces, in the type of its result; of half
// types in fp32. Before, `input` is cast to that type, as ATen has it: but for means of fp32 in a
// half type, which are rounded at the end alone.
ValueId ExactSum(GraphRewriter& rewriter, const Node& node, ValueId input) {
  const Graph& graph = rewriter.graph();
  TensorType type = graph.type(node.outputs[0]);
  const bool is_half = IsHalf(type.dtype);
  const bool is_exact = is_half && IsMean(node) && graph.type(input).dtype == DType::kF32;
  if (!is_exact) input = CastTo(node, input, type.dtype, rewriter);
  if (is_half) type.dtype = DType::kF32;
  const Argument dtype = is_half && !is_exact ? Argument(type.dtype) : Argument(None{});
  const std::vector<int64_t> dims = ReducedDims(node, graph.type(input).rank());
  const bool has_dims = node.op == "aten.mean.dim" || node.op == "aten.sum.dim_IntList";
  const bool keep = has_dims && FlagArgument(node.args, 2).value_or(false);
  return rewriter.EmitOne(node, "aten.sum.dim_IntList",
                          {input, IntList(dims.begin(), dims.end()), keep, dtype}, type);
}

}  // namespace

bool IsMean(const Node& node) {
  return node.op == "aten.mean.dim" || node.op == "aten.mean.default";
}

bool IsSum(const Node& node) {
  return node.op == "aten.sum.dim_IntList" || node.op == "aten.sum.default";
}

std::vector<int64_t> ReducedDims(const Node& node, int64_t rank) {
  std::vector<int64_t> dims;
  const bool has_dims = node.op == "aten.mean.dim" || node.op == "aten.sum.dim_IntList";
  const IntList* list = has_dims ? std::get_if<IntList>(&node.args[1]) : nullptr;
  if (list != nullptr) {
    for (const SymInt& dim : *list) dims.push_back(dim.value < 0 ? dim.value + rank : dim.value);
  }
  if (!dims.empty()) return dims;
  for (int64_t i = 0; i < rank; ++i) dims.push_back(i);
  return dims;
}

void ReplaceBySum(GraphRewriter& rewriter, const Node& mean, ValueId input, int64_t count) {
  const ValueId sum = ExactSum(rewriter, mean, input);
  const ValueId result = rewriter.EmitOne(
      mean, "aten.mul.Tensor", {sum, 1.0 / static_cast<double>(count)}, rewriter.graph().type(sum));
  const DType dtype = rewriter.graph().type(mean.outputs[0]).dtype;
  rewriter.Replace(mean.outputs[0], CastTo(mean, result, dtype, rewriter));
}

void ReplaceByExactSum(GraphRewriter& rewriter, const Node& sum) {
  const ValueId exact = ExactSum(rewriter, sum, OperandsOf(sum)[0]);
  const DType dtype = rewriter.graph().type(sum.outputs[0]).dtype;
  rewriter.Replace(sum.outputs[0], CastTo(sum, exact, dtype, rewriter));
}

}  // namespace autosp
