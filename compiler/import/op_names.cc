#include "compiler/import/op_names.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "compiler/ir/argument_access.h"

namespace autosp {
namespace {

// Names whose arguments are those of another name. A number may stand for a tensor everywhere, and
// zeros for what is empty.
const std::map<std::string_view, std::string_view>& SameArguments() {
  static const auto& names = *new std::map<std::string_view, std::string_view>{
      {"aten.__and__.Scalar", "aten.__and__.Tensor"},
      {"aten.__or__.Scalar", "aten.__or__.Tensor"},
      {"aten.__xor__.Scalar", "aten.__xor__.Tensor"},
      {"aten.absolute.default", "aten.abs.default"},
      {"aten.add.Scalar", "aten.add.Tensor"},
      {"aten.arccos.default", "aten.acos.default"},
      {"aten.arccosh.default", "aten.acosh.default"},
      {"aten.arcsin.default", "aten.asin.default"},
      {"aten.arcsinh.default", "aten.asinh.default"},
      {"aten.arctan.default", "aten.atan.default"},
      {"aten.arctan2.default", "aten.atan2.default"},
      {"aten.arctanh.default", "aten.atanh.default"},
      {"aten.bitwise_and.Scalar", "aten.bitwise_and.Tensor"},
      {"aten.bitwise_or.Scalar", "aten.bitwise_or.Tensor"},
      {"aten.bitwise_xor.Scalar", "aten.bitwise_xor.Tensor"},
      {"aten.clip.Tensor", "aten.clamp.Tensor"},
      {"aten.clip.default", "aten.clamp.default"},
      {"aten.concat.default", "aten.cat.default"},
      {"aten.concatenate.default", "aten.cat.default"},
      {"aten.div.Scalar", "aten.div.Tensor"},
      {"aten.div.Scalar_mode", "aten.div.Tensor_mode"},
      {"aten.divide.Scalar", "aten.div.Tensor"},
      {"aten.divide.Scalar_mode", "aten.div.Tensor_mode"},
      {"aten.divide.Tensor", "aten.div.Tensor"},
      {"aten.divide.Tensor_mode", "aten.div.Tensor_mode"},
      {"aten.dot.default", "aten.matmul.default"},
      {"aten.empty_like.default", "aten.zeros_like.default"},
      {"aten.fix.default", "aten.trunc.default"},
      {"aten.floor_divide.Scalar", "aten.floor_divide.default"},
      {"aten.greater.Scalar", "aten.gt.Scalar"},
      {"aten.greater.Tensor", "aten.gt.Tensor"},
      {"aten.greater_equal.Scalar", "aten.ge.Scalar"},
      {"aten.greater_equal.Tensor", "aten.ge.Tensor"},
      {"aten.less.Scalar", "aten.lt.Scalar"},
      {"aten.less.Tensor", "aten.lt.Tensor"},
      {"aten.less_equal.Scalar", "aten.le.Scalar"},
      {"aten.less_equal.Tensor", "aten.le.Tensor"},
      {"aten.max.other", "aten.maximum.default"},
      {"aten.min.other", "aten.minimum.default"},
      {"aten.moveaxis.int", "aten.movedim.int"},
      {"aten.moveaxis.intlist", "aten.movedim.intlist"},
      {"aten.mul.Scalar", "aten.mul.Tensor"},
      {"aten.multiply.Scalar", "aten.mul.Tensor"},
      {"aten.multiply.Tensor", "aten.mul.Tensor"},
      {"aten.mv.default", "aten.matmul.default"},
      {"aten.negative.default", "aten.neg.default"},
      {"aten.new_empty.default", "aten.new_zeros.default"},
      {"aten.not_equal.Scalar", "aten.ne.Scalar"},
      {"aten.not_equal.Tensor", "aten.ne.Tensor"},
      {"aten.positive.default", "aten.alias.default"},
      {"aten.split.sizes", "aten.split_with_sizes.default"},
      {"aten.sub.Scalar", "aten.sub.Tensor"},
      {"aten.subtract.Scalar", "aten.sub.Tensor"},
      {"aten.subtract.Tensor", "aten.sub.Tensor"},
      {"aten.swapaxes.default", "aten.transpose.int"},
      {"aten.swapdims.default", "aten.transpose.int"},
      {"aten.true_divide.Scalar", "aten.div.Tensor"},
      {"aten.true_divide.Tensor", "aten.div.Tensor"},
      {"aten.unsafe_chunk.default", "aten.chunk.default"},
      {"aten.unsafe_split.Tensor", "aten.split.Tensor"},
      {"aten.unsafe_split_with_sizes.default", "aten.split_with_sizes.default"},
      {"aten.vdot.default", "aten.matmul.default"},
  };
  return names;
}

void Set(Node& node, std::string_view op, std::vector<Argument> args) {
  node.op = std::string(op);
  node.args = std::move(args);
}

IntList Reversed(int64_t rank) {
  IntList order;
  for (int64_t dim = rank - 1; dim >= 0; --dim) order.emplace_back(dim);
  return order;
}

// numpy_T(x): all dimensions the other way round.
void ReverseDims(const Graph& graph, Node& node) {
  const int64_t rank = graph.type(node.outputs[0]).rank();
  if (rank <= 2) return Set(node, "aten.t.default", {node.args[0]});
  Set(node, "aten.permute.default", {node.args[0], Reversed(rank)});
}

// mT(x), and adjoint(x), since elements are real.
void TransposeMatrix(const Graph& /*graph*/, Node& node) {
  Set(node, "aten.transpose.int", {node.args[0], SymInt(-2), SymInt(-1)});
}

// The numbers of a list, or of one number, counted from the front.
std::vector<int64_t> Places(const Argument& argument, int64_t rank) {
  std::vector<int64_t> places;
  if (const auto* one = std::get_if<SymInt>(&argument)) places = {one->value};
  if (const auto* list = std::get_if<IntList>(&argument)) {
    for (const SymInt& item : *list) places.push_back(item.value);
  }
  for (int64_t& place : places) place += place < 0 ? rank : 0;
  return places;
}

// movedim(x, source, destination): what is named goes to its place, the rest keeps its order.
void MoveDims(const Graph& graph, Node& node) {
  const int64_t rank = graph.type(node.outputs[0]).rank();
  const std::vector<int64_t> from = Places(node.args[1], rank);
  const std::vector<int64_t> to = Places(node.args[2], rank);
  IntList order;
  int64_t next = 0;
  for (int64_t i = 0; i < rank; ++i) {
    const auto moved = std::ranges::find(to, i);
    if (moved != to.end()) {
      order.emplace_back(from[moved - to.begin()]);
      continue;
    }
    while (std::ranges::count(from, next) > 0) ++next;
    order.emplace_back(next++);
  }
  Set(node, "aten.permute.default", {node.args[0], std::move(order)});
}

// view_as(x, y) is x.view(y.shape), and ravel(x) x.reshape(-1).
void ViewAtSizes(const Graph& graph, Node& node) {
  const bool is_view = node.op == "aten.view_as.default";
  Set(node, is_view ? "aten.view.default" : "aten.reshape.default",
      {node.args[0], IntList(graph.type(node.outputs[0]).sizes)});
}

void ExpandTo(const Graph& /*graph*/, Node& node) {
  Set(node, "aten.expand.default", {node.args[0], node.args[1], false});
}

// Of two sizes, as the archive writes them where one has a symbol.
SymInt Added(const SymInt& a, const SymInt& b) {
  const int64_t value = a.value + b.value;
  if (a.expr.empty() && b.expr.empty()) return SymInt(value);
  const auto expr_of = [](const SymInt& size) {
    return size.expr.empty() ? SymExpr::Const(size.value) : size.expr;
  };
  return SymInt(value, SymExpr::Make(SymExpr::Op::kAdd, {expr_of(a), expr_of(b)}));
}

// narrow(x, dim, start, length), where the end is known as start and length are.
void SliceOfLength(const Graph& graph, Node& node) {
  const auto* start = ArgumentAs<SymInt>(node.args, 2);
  const auto* length = ArgumentAs<SymInt>(node.args, 3);
  const auto* dim = ArgumentAs<SymInt>(node.args, 1);
  if (start == nullptr || length == nullptr || dim == nullptr) return;
  const auto place = static_cast<size_t>(Places(*dim, graph.type(node.outputs[0]).rank())[0]);
  SymInt end = *length;
  if (start->value != 0 || !start->expr.empty()) {
    // Counted from the end, what is left of a dimension is all of its rest.
    const SymInt& size = graph.type(TensorArgument(node.args, 0)).sizes[place];
    const bool is_symbolic = !start->expr.empty() || !length->expr.empty() || !size.expr.empty();
    if (start->value < 0 && is_symbolic) return;
    end = Added(start->value < 0 ? Added(*start, size) : *start, *length);
  }
  Set(node, "aten.slice.Tensor", {node.args[0], *dim, *start, std::move(end), SymInt(1)});
}

// empty(sizes, ..., memory_format): anything may stand there, and zeros do. What is left of it is
// seen by no one, else the model would compute something else each time.
void FillEmpty(const Graph& /*graph*/, Node& node) {
  node.args.resize(std::min<size_t>(node.args.size(), 5));
  node.op = "aten.zeros.default";
}

// grouped_mm_fallback(input, weight, offs): what the library runs where it finds no ATen op for a
// type. Rows behind the last offset are zeros in one and undefined in the other.
void GroupRows(const Graph& /*graph*/, Node& node) {
  Set(node, "aten._grouped_mm.default", {node.args[0], node.args[1], node.args[2], None{}, None{}});
}

using RewriteFn = void (*)(const Graph& graph, Node& node);

const std::map<std::string_view, RewriteFn>& OtherForms() {
  static const auto& forms = *new std::map<std::string_view, RewriteFn>{
      {"aten.adjoint.default", TransposeMatrix},
      {"aten.broadcast_to.default", ExpandTo},
      {"aten.empty.memory_format", FillEmpty},
      {"aten.mH.default", TransposeMatrix},
      {"aten.mT.default", TransposeMatrix},
      {"aten.matrix_H.default", TransposeMatrix},
      {"aten.movedim.int", MoveDims},
      {"aten.movedim.intlist", MoveDims},
      {"aten.narrow.default", SliceOfLength},
      {"aten.numpy_T.default", ReverseDims},
      {"aten.ravel.default", ViewAtSizes},
      {"aten.reshape_as.default", ViewAtSizes},
      {"aten.view_as.default", ViewAtSizes},
      {"transformers.grouped_mm_fallback.default", GroupRows},
  };
  return forms;
}

// outer(a, b): the column of a, which is returned, times b.
//
//   before  %y = outer(%a, %b)                    %a [4], %b [6]
//   after   %c = unsqueeze(%a, 1)   %y = mul(%c, %b)
std::optional<Node> ColumnOfOuter(Graph& graph, Node& node) {
  if (node.op != "aten.outer.default" && node.op != "aten.ger.default") return std::nullopt;
  const ValueId column_of = TensorArgument(node.args, 0);
  TensorType type = graph.type(column_of);
  type.sizes.emplace_back(1);
  type.strides.push_back(1);
  Node column{.op = "aten.unsqueeze.default",
              .args = {column_of, SymInt(1)},
              .outputs = {graph.AddValue("column", std::move(type))},
              .source = node.source,
              .no_grad = node.no_grad};
  Set(node, "aten.mul.Tensor", {column.outputs[0], node.args[1]});
  return column;
}

}  // namespace

void UnifyOpNames(Graph& graph) {
  std::vector<Node> nodes;
  nodes.reserve(graph.nodes.size());
  for (Node& node : graph.nodes) {
    const auto same = SameArguments().find(node.op);
    if (same != SameArguments().end()) node.op = std::string(same->second);
    const auto other = OtherForms().find(node.op);
    if (other != OtherForms().end()) other->second(graph, node);
    if (std::optional<Node> column = ColumnOfOuter(graph, node))
      nodes.push_back(*std::move(column));
    nodes.push_back(std::move(node));
  }
  graph.nodes = std::move(nodes);
}

}  // namespace autosp
