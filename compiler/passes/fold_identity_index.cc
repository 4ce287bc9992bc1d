#include <algorithm>
#include <optional>

#include "compiler/analysis/index_expr.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

// The dimension of the result that an index follows element by element; -1: a constant 0. nullopt:
// anything else.
std::optional<int64_t> FollowedDim(const IndexExpr& index, int64_t missing) {
  if (index.kind != IndexExpr::Kind::kAffine || index.affine.constant != 0) return std::nullopt;
  if (index.affine.terms.empty()) return -1;
  if (index.affine.terms.size() != 1) return std::nullopt;
  const auto& [key, coefficient] = *index.affine.terms.begin();
  if (coefficient != 1 || key.size() != 2 || key[0] != 'i') return std::nullopt;
  return key[1] - '0' + missing;
}

// Whether x[indices] lists the elements of x in order, with only dimensions of size 1 added.
bool IsIdentity(const Graph& graph, const Node& node, IndexEvaluator& evaluator) {
  const ValueId self = std::get<ValueId>(node.args[0]);
  const auto& slots = std::get<ValueList>(node.args[1]);
  const std::vector<int64_t> from = Values(graph.type(self).sizes);
  const std::vector<int64_t> to = Values(graph.type(node.outputs[0]).sizes);
  if (slots.size() != from.size() || graph.type(self).numel() == 0) return false;
  int64_t last = -1;
  for (size_t i = 0; i < slots.size(); ++i) {
    if (!slots[i].valid() || IsFloating(graph.type(slots[i]).dtype) ||
        graph.type(slots[i]).dtype == DType::kBool) {
      return false;
    }
    const int64_t missing = static_cast<int64_t>(to.size()) - graph.type(slots[i]).rank();
    const std::optional<int64_t> dim = FollowedDim(*evaluator.Element(slots[i]), missing);
    if (!dim) return false;
    if (*dim < 0) {
      if (from[i] != 1) return false;
      continue;
    }
    // In order, and all of the dimension.
    if (*dim <= last || to[*dim] != from[i]) return false;
    last = *dim;
  }
  return graph.type(self).numel() == graph.type(node.outputs[0]).numel();
}

// Whether x[b, i] looks one place up for each row of x, where b lists all rows in order.
bool IsOneOfEachRow(const Graph& graph, const Node& node, IndexEvaluator& evaluator) {
  const auto& slots = std::get<ValueList>(node.args[1]);
  const std::vector<int64_t> from = Values(graph.type(std::get<ValueId>(node.args[0])).sizes);
  const std::vector<int64_t> to = Values(graph.type(node.outputs[0]).sizes);
  if (slots.size() != 2 || !slots[0].valid() || !slots[1].valid()) return false;
  for (const ValueId slot : slots) {
    const TensorType& type = graph.type(slot);
    if (type.dtype != DType::kI64 || type.rank() != 1 || type.sizes[0].value != from[0]) {
      return false;
    }
  }
  return to[0] == from[0] && FollowedDim(*evaluator.Element(slots[0]), 0) == 0;
}

// x[b, i] as gather(x, 1, i), which each row has for itself. A place may be counted from the end.
ValueId LookUpOneOfEachRow(const Node& node, GraphRewriter& rewriter) {
  const TensorType result = Contiguous(rewriter.graph().type(node.outputs[0]));
  const auto self = std::get<ValueId>(node.args[0]);
  const SymInt length = rewriter.graph().type(self).sizes[1];
  ValueId index = std::get<ValueList>(node.args[1])[1];
  TensorType type = Contiguous(rewriter.graph().type(index));
  TensorType flag = type;
  flag.dtype = DType::kBool;
  const ValueId is_behind =
      rewriter.EmitOne(node, "aten.lt.Scalar", {index, SymInt(0)}, std::move(flag));
  const ValueId counted =
      rewriter.EmitOne(node, "aten.add.Tensor", {index, length, SymInt(1)}, type);
  index = rewriter.EmitOne(node, "aten.where.self", {is_behind, counted, index}, type);
  type.sizes.resize(result.sizes.size() + 1, SymInt(1));
  type = Contiguous(type);
  index = rewriter.EmitOne(node, "aten.view.default", {index, IntList(type.sizes)}, type);
  TensorType picked = result;
  picked.sizes.insert(picked.sizes.begin() + 1, SymInt(1));
  picked = Contiguous(picked);
  type.sizes = picked.sizes;
  std::fill(type.strides.begin() + 2, type.strides.end(), 0);
  index = rewriter.EmitOne(node, "aten.expand.default", {index, IntList(type.sizes), false}, type);
  const ValueId looked_up =
      rewriter.EmitOne(node, "aten.gather.default", {self, SymInt(1), index, false}, picked);
  return rewriter.EmitOne(node, "aten.view.default", {looked_up, IntList(result.sizes)}, result);
}

}  // namespace

// A look-up of every element in its own place is a view. Exported masks look per-token values up by
// arange(batch) and arange(tokens), which would need whole batches for nothing.
//
//   before  %y = aten.index.Tensor(%mask, [%b, %k]) : bool[2, 1, 1, 32]    %b = 0, 1; %k = 0 ... 31
//   after   %y = aten.view.default(%mask, [2, 1, 1, 32])
//
// So would the last token of each sequence, which is a look-up in that sequence alone.
//
//   before  %y = aten.index.Tensor(%x, [%b, %last])       %x [2, 32, 6], %b = 0, 1
//   after   %y = aten.view.default(aten.gather.default(%x, 1, %last as [2, 1, 6]), [2, 6])
absl::StatusOr<bool> FoldIdentityIndex(Graph& graph, const PassContext& /*context*/) {
  std::vector<bool> is_identity;
  std::vector<bool> is_of_rows;
  {
    IndexEvaluator evaluator(graph);
    for (const Node& node : graph.nodes) {
      const bool is_index = node.op == "aten.index.Tensor";
      is_identity.push_back(is_index && IsIdentity(graph, node, evaluator));
      is_of_rows.push_back(is_index && !is_identity.back() &&
                           IsOneOfEachRow(graph, node, evaluator));
    }
  }
  GraphRewriter rewriter(graph);
  for (size_t i = 0; i < rewriter.nodes().size(); ++i) {
    const Node& node = rewriter.nodes()[i];
    if (is_of_rows[i]) {
      rewriter.Replace(node.outputs[0], LookUpOneOfEachRow(node, rewriter));
      continue;
    }
    if (!is_identity[i]) {
      rewriter.Keep(node);
      continue;
    }
    const TensorType type = graph.type(node.outputs[0]);
    const ValueId view = rewriter.EmitOne(node, "aten.view.default",
                                          {node.args[0], IntList(type.sizes)}, Contiguous(type));
    rewriter.Replace(node.outputs[0], view);
  }
  return rewriter.Finish();
}

}  // namespace autosp
