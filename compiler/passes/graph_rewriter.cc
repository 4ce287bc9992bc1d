#include "compiler/passes/graph_rewriter.h"

#include <string>

#include "compiler/rules/op_context.h"

namespace autosp {

GraphRewriter::GraphRewriter(Graph& graph)
    : graph_(graph), old_nodes_(std::move(graph.nodes)), replacement_(graph.values.size()) {
  graph_.nodes.clear();
  new_nodes_.reserve(old_nodes_.size());
}

ValueId GraphRewriter::Current(ValueId id) const {
  while (id.index < static_cast<int32_t>(replacement_.size()) && replacement_[id.index].valid()) {
    id = replacement_[id.index];
  }
  return id;
}

void GraphRewriter::Keep(const Node& node) {
  Node copy = node;
  for (Argument& argument : copy.args) {
    ForEachValue(argument, [this](ValueId& id) { id = Current(id); });
  }
  new_nodes_.push_back(std::move(copy));
}

std::vector<ValueId> GraphRewriter::Emit(const Node& like, std::string_view op,
                                         std::vector<Argument> args,
                                         std::vector<TensorType> types) {
  Node node{.op = std::string(op),
            .args = std::move(args),
            .outputs = {},
            .source = like.source,
            .no_grad = like.no_grad};
  for (Argument& argument : node.args) {
    ForEachValue(argument, [this](ValueId& id) { id = Current(id); });
  }
  // "aten.native_layer_norm.default" -> "native_layer_norm"
  const size_t begin = op.find('.') == std::string_view::npos ? 0 : op.find('.') + 1;
  const std::string_view name = op.substr(begin, op.find('.', begin) - begin);
  for (TensorType& type : types) node.outputs.push_back(graph_.AddValue(name, std::move(type)));
  new_nodes_.push_back(node);
  changed_ = true;
  return node.outputs;
}

ValueId GraphRewriter::EmitOne(const Node& like, std::string_view op, std::vector<Argument> args,
                               TensorType type) {
  std::vector<TensorType> types;
  types.push_back(std::move(type));
  return Emit(like, op, std::move(args), std::move(types))[0];
}

void GraphRewriter::Replace(ValueId old_value, ValueId new_value) {
  new_value = Current(new_value);
  if (old_value == new_value) return;
  replacement_[old_value.index] = new_value;
  changed_ = true;
}

bool GraphRewriter::Finish() {
  graph_.nodes = std::move(new_nodes_);
  for (ValueId& output : graph_.outputs) output = Current(output);
  return changed_;
}

namespace {

std::vector<int32_t> Definers(const std::vector<Node>& nodes, size_t num_values) {
  std::vector<int32_t> definer(num_values, -1);
  for (size_t i = 0; i < nodes.size(); ++i) {
    for (ValueId output : nodes[i].outputs) definer[output.index] = static_cast<int32_t>(i);
  }
  return definer;
}

}  // namespace

const Node* GraphRewriter::OldDefiner(ValueId id) {
  if (old_definer_.empty()) old_definer_ = Definers(old_nodes_, graph_.values.size());
  return old_definer_[id.index] < 0 ? nullptr : &old_nodes_[old_definer_[id.index]];
}

std::vector<int32_t> DefiningNodes(const Graph& graph) {
  return Definers(graph.nodes, graph.values.size());
}

bool SameType(const Graph& graph, ValueId a, ValueId b) {
  return graph.type(a).dtype == graph.type(b).dtype &&
         Values(graph.type(a).sizes) == Values(graph.type(b).sizes);
}

ValueId RepeatAlong(GraphRewriter& rewriter, const Node& node, ValueId value, int64_t dim,
                    int64_t copies) {
  const TensorType type = rewriter.graph().type(value);
  TensorType unsqueezed = type;
  unsqueezed.sizes.insert(unsqueezed.sizes.begin() + dim + 1, SymInt(1));
  TensorType expanded = unsqueezed;
  expanded.sizes[dim + 1] = SymInt(copies);
  TensorType repeated = type;
  repeated.sizes[dim] = SymInt(type.sizes[dim].value * copies);
  const ValueId a = rewriter.EmitOne(node, "aten.unsqueeze.default", {value, SymInt(dim + 1)},
                                     Contiguous(unsqueezed));
  const ValueId b = rewriter.EmitOne(node, "aten.expand.default",
                                     {a, IntList(expanded.sizes), false}, Contiguous(expanded));
  return rewriter.EmitOne(node, "aten.reshape.default", {b, IntList(repeated.sizes)},
                          Contiguous(repeated));
}

TensorType Contiguous(TensorType type) {
  type.strides = ContiguousStrides(Values(type.sizes));
  return type;
}

TensorType ContiguousOf(DType dtype, std::vector<SymInt> sizes) {
  return Contiguous({.dtype = dtype, .sizes = std::move(sizes), .strides = {}});
}

ValueId ReshapeTo(const Node& node, ValueId value, std::vector<SymInt> sizes,
                  GraphRewriter& rewriter) {
  const TensorType type = ContiguousOf(rewriter.graph().type(value).dtype, std::move(sizes));
  return rewriter.EmitOne(node, "aten.reshape.default", {value, IntList(type.sizes)}, type);
}

ValueId CastTo(const Node& node, ValueId value, DType dtype, GraphRewriter& rewriter) {
  TensorType type = rewriter.graph().type(value);
  if (type.dtype == dtype) return value;
  type.dtype = dtype;
  return rewriter.EmitOne(node, "aten.to.dtype", {value, dtype, false, false, None{}}, type);
}

ValueId EmitRange(GraphRewriter& rewriter, const Node& node, int64_t first, int64_t end) {
  const TensorType type = ContiguousOf(DType::kI64, {SymInt(end - first)});
  const Argument none = None{};
  if (first == 0) {
    return rewriter.EmitOne(node, "aten.arange.default", {SymInt(end), none, none, none, none},
                            type);
  }
  return rewriter.EmitOne(node, "aten.arange.start",
                          {SymInt(first), SymInt(end), none, none, none, none}, type);
}

}  // namespace autosp
