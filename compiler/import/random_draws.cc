#include "compiler/import/random_draws.h"

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/filled_tensor.h"

namespace autosp {
namespace {

bool IsUniform(const Node& node) {
  return node.op == "aten.rand.default" || node.op == "aten.rand_like.default";
}
bool IsBernoulli(const Node& node) {
  return node.op == "aten.bernoulli.p" || node.op == "aten.bernoulli.default";
}

class DrawExpander {
 public:
  explicit DrawExpander(Graph& graph) : graph_(graph) {
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      for (ValueId output : graph.nodes[i].outputs) definer_[output] = i;
    }
  }

  absl::Status Run() {
    std::vector<Node> nodes;
    for (const Node& node : graph_.nodes) {
      const std::optional<double> kept = KeptPart(node);
      if (kept) {
        Draw(node, *kept, &nodes);
      } else if (!IsUniform(node)) {
        nodes.push_back(node);
      }
    }
    return CheckAllUsed(std::move(nodes));
  }

 private:
  const Node* NodeOf(const Argument& argument) const {
    const auto* id = std::get_if<ValueId>(&argument);
    if (id == nullptr || !id->valid()) return nullptr;
    const auto found = definer_.find(*id);
    return found == definer_.end() ? nullptr : &graph_.nodes[found->second];
  }
  bool IsUniformValue(const Argument& argument) const {
    const Node* node = NodeOf(argument);
    return node != nullptr && IsUniform(*node);
  }

  // The probability that an element of a node's result is not 0; nullopt: it draws nothing, or
  // something else.
  std::optional<double> KeptPart(const Node& node) const {
    if (node.op == "aten.bernoulli.p") return NumberArgument(node.args, 1);
    if (node.op == "aten.bernoulli.default") {
      const Node* filled = NodeOf(node.args[0]);
      return filled == nullptr ? std::nullopt : FilledWith(*filled);
    }
    if (node.op == "aten.floor.default") {
      const Node* sum = NodeOf(node.args[0]);
      const bool is_shifted = sum != nullptr && sum->op == "aten.add.Tensor" &&
                              IsUniformValue(sum->args[0]) &&
                              NumberArgument(sum->args, 2).value_or(1) == 1;
      return is_shifted ? NumberArgument(sum->args, 1) : std::nullopt;
    }
    const bool is_below = node.op == "aten.lt.Scalar" || node.op == "aten.le.Scalar";
    const bool is_above = node.op == "aten.gt.Scalar" || node.op == "aten.ge.Scalar";
    if ((!is_below && !is_above) || !IsUniformValue(node.args[0])) return std::nullopt;
    const std::optional<double> limit = NumberArgument(node.args, 1);
    if (!limit) return std::nullopt;
    return is_below ? *limit : 1 - *limit;
  }

  ValueId Emit(const Node& like, std::string op, std::vector<Argument> args, TensorType type,
               std::vector<Node>* nodes) {
    const ValueId value = graph_.AddValue(graph_.value(like.outputs[0]).name, std::move(type));
    nodes->push_back({std::move(op), std::move(args), {value}, like.source, like.no_grad});
    return value;
  }

  // The result of `node`: 1 with probability `kept`, else 0.
  void Draw(const Node& node, double kept, std::vector<Node>* nodes) {
    const TensorType result = graph_.type(node.outputs[0]);
    TensorType type = result;
    type.dtype = IsFloating(result.dtype) ? result.dtype : DType::kF32;
    std::vector<int64_t> sizes;
    for (const SymInt& size : type.sizes) sizes.push_back(size.value);
    type.strides = ContiguousStrides(sizes);
    const bool is_certain = kept <= 0 || kept >= 1;
    const double filled = kept <= 0 ? 0.0 : 1.0;
    ValueId drawn =
        Emit(node, "aten.full.default",
             {IntList(type.sizes), filled, type.dtype, None{}, None{}, None{}}, type, nodes);
    if (!is_certain) {
      drawn = Emit(node, "aten.dropout.default",
                   {drawn, 1 - kept, true, EnumName{std::string(kAlwaysDraws)}}, type, nodes);
    }
    Node last = node;
    last.op = "aten.ne.Scalar";
    last.args = {drawn, SymInt(0)};
    if (result.dtype != DType::kBool) {
      TensorType truth = type;
      truth.dtype = DType::kBool;
      const ValueId kept_places =
          Emit(node, "aten.ne.Scalar", {drawn, SymInt(0)}, std::move(truth), nodes);
      last.op = "aten.to.dtype";
      last.args = {kept_places, result.dtype, false, false, None{}};
    }
    graph_.value(node.outputs[0]).type.strides = type.strides;
    nodes->push_back(std::move(last));
  }

  // What was drawn for an op that is gone is gone with it.
  absl::Status CheckAllUsed(std::vector<Node> nodes) {
    std::map<ValueId, const Node*> dropped;
    for (const Node& node : graph_.nodes) {
      if (IsUniform(node)) dropped[node.outputs[0]] = &node;
    }
    std::map<ValueId, int> num_uses;
    for (const Node& node : nodes) {
      for (ValueId operand : OperandsOf(node)) ++num_uses[operand];
    }
    for (ValueId output : graph_.outputs) ++num_uses[output];
    std::vector<Node> kept;
    for (Node& node : nodes) {
      // Sums that stood between.
      const bool reads_dropped = node.op == "aten.add.Tensor" && IsUniformValue(node.args[0]) &&
                                 num_uses[node.outputs[0]] == 0;
      if (reads_dropped) continue;
      for (ValueId operand : OperandsOf(node)) {
        const auto found = dropped.find(operand);
        if (found != dropped.end()) return Refuse(*found->second);
      }
      if (IsBernoulli(node)) return Refuse(node);
      kept.push_back(std::move(node));
    }
    for (ValueId output : graph_.outputs) {
      const auto found = dropped.find(output);
      if (found != dropped.end()) return Refuse(*found->second);
    }
    graph_.nodes = std::move(kept);
    return absl::OkStatus();
  }

  absl::Status Refuse(const Node& node) const {
    return Unimplemented(Describe(graph_, node),
                         ": random numbers are supported where they are compared with a number, "
                         "or drawn by bernoulli with one, as stochastic depth does; draw others "
                         "outside of the model, and pass them as an input");
  }

  Graph& graph_;
  std::map<ValueId, size_t> definer_;
};

}  // namespace

absl::Status ExpandDraws(Graph& graph) { return DrawExpander(graph).Run(); }

}  // namespace autosp
