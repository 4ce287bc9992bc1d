#include "compiler/import/remove_noise.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "compiler/import/op_refusals.h"
#include "compiler/import/op_schemas.h"

namespace autosp {
namespace {

// Conversions return their operand itself where there is nothing to convert, also under no_grad;
// the others return a new tensor, through which no_grad lets no gradient pass.
bool IsConversion(std::string_view op) { return op.starts_with("aten.to."); }

bool IsPlainIdentity(const Node& node) {
  for (const std::string_view op :
       {"aten.alias.default", "aten.detach.default", "aten.clone.default",
        "aten.lift_fresh_copy.default", "aten.lift_fresh.default", "aten.lift.default"}) {
    if (node.op == op) return true;
  }
  const OpSchema* schema = FindOpSchema(node.op);
  return schema != nullptr && IsIdentityDropout(*schema, node.args);
}

bool IsFlagSet(const Node& node, std::string_view name) {
  const OpSchema* schema = FindOpSchema(node.op);
  for (size_t i = 0; i < node.args.size(); ++i) {
    const bool* flag = std::get_if<bool>(&node.args[i]);
    if (schema->parameters[i].name == name) return flag != nullptr && *flag;
  }
  return false;
}

class NoiseRemover {
 public:
  explicit NoiseRemover(Graph& graph) : graph_(graph), requires_grad_(graph.values.size(), false) {
    for (size_t i = 0; i < graph.values.size(); ++i) {
      stands_for_.push_back(ValueId{static_cast<int32_t>(i)});
    }
  }

  void Run() {
    for (const GraphInput& input : graph_.inputs) {
      requires_grad_[input.value.index] = input.requires_grad;
    }
    std::vector<Node> kept;
    for (Node& node : graph_.nodes) {
      RedirectOperands(node);
      if (RemoveIdentity(node)) continue;
      Canonicalise(node);
      MarkGradient(node);
      kept.push_back(std::move(node));
    }
    for (ValueId& output : graph_.outputs) output = stands_for_[output.index];
    graph_.nodes = RemoveDead(std::move(kept));
    Compact();
  }

 private:
  void RedirectOperands(Node& node) const {
    for (Argument& argument : node.args) {
      ForEachValue(argument, [this](ValueId& id) { id = stands_for_[id.index]; });
    }
  }

  bool RemoveIdentity(const Node& node) {
    const bool is_plain = IsPlainIdentity(node);
    const bool is_conversion = IsConversion(node.op) && !IsFlagSet(node, "copy");
    if ((!is_plain && !is_conversion) || node.outputs.size() != 1) return false;
    const auto* operand = std::get_if<ValueId>(&node.args[0]);
    if (operand == nullptr || graph_.type(*operand) != graph_.type(node.outputs[0])) return false;
    const bool stops_gradient = node.op == "aten.detach.default" || (is_plain && node.no_grad);
    if (stops_gradient && requires_grad_[operand->index]) return false;
    stands_for_[node.outputs[0].index] = *operand;
    return true;
  }

  void Canonicalise(Node& node) const {
    if (!IsConversion(node.op) || node.op == "aten.to.dtype") return;
    const DType dtype = graph_.type(node.outputs[0]).dtype;
    Argument memory_format = IsNone(node.args.back()) || std::get_if<EnumName>(&node.args.back())
                                 ? node.args.back()
                                 : Argument(None());
    const Argument operand = node.args[0];
    const bool is_copy = IsFlagSet(node, "copy");
    node.op = "aten.to.dtype";
    node.args = {operand, dtype, false, is_copy, std::move(memory_format)};
  }

  void MarkGradient(const Node& node) {
    bool has_gradient = false;
    for (const ValueId operand : OperandsOf(node)) has_gradient |= requires_grad_[operand.index];
    if (node.no_grad || node.op == "aten.detach.default") has_gradient = false;
    for (const ValueId output : node.outputs) {
      requires_grad_[output.index] = has_gradient && IsFloating(graph_.type(output).dtype);
    }
  }

  std::vector<Node> RemoveDead(std::vector<Node> nodes) const {
    std::vector<bool> is_used(graph_.values.size(), false);
    for (const ValueId output : graph_.outputs) is_used[output.index] = true;
    std::vector<Node> live;
    for (size_t i = nodes.size(); i-- > 0;) {
      const bool is_live = std::ranges::any_of(
          nodes[i].outputs, [&](ValueId output) { return is_used[output.index]; });
      if (!is_live) continue;
      for (const ValueId operand : OperandsOf(nodes[i])) is_used[operand.index] = true;
      live.push_back(std::move(nodes[i]));
    }
    std::ranges::reverse(live);
    return live;
  }

  // Numbers the values that are left in the order of their definitions.
  void Compact() {
    std::vector<ValueId> new_ids(graph_.values.size());
    std::vector<GraphValue> values;
    const auto renumber = [&](ValueId& id) { id = new_ids[id.index]; };
    const auto define = [&](ValueId& id) {
      new_ids[id.index] = ValueId{static_cast<int32_t>(values.size())};
      values.push_back(std::move(graph_.values[id.index]));
      renumber(id);
    };
    for (GraphInput& input : graph_.inputs) define(input.value);
    for (Node& node : graph_.nodes) {
      for (Argument& argument : node.args) ForEachValue(argument, renumber);
      for (ValueId& output : node.outputs) define(output);
    }
    for (ValueId& output : graph_.outputs) renumber(output);
    for (auto& [output, buffer] : graph_.writes) renumber(buffer);
    graph_.SetValues(std::move(values));
  }

  Graph& graph_;
  std::vector<ValueId> stands_for_;
  std::vector<bool> requires_grad_;
};

}  // namespace

void RemoveNoise(Graph& graph) { NoiseRemover(graph).Run(); }

}  // namespace autosp
