#include "compiler/import/random_draws.h"

#include <cmath>
#include <cstdint>
#include <map>
#include <numbers>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/op_refusals.h"
#include "compiler/import/op_schemas.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/filled_tensor.h"
#include "compiler/ir/random_ops.h"
#include "compiler/ir/type_text.h"

namespace autosp {
namespace {

bool IsUniform(const Node& node) {
  return node.op == "aten.rand.default" || node.op == "aten.rand_like.default";
}

// What drops nothing is left to RemoveNoise.
bool DropsChannels(const Node& node) {
  return node.op == "aten.feature_dropout.default" &&
         !IsIdentityDropout(*FindOpSchema(node.op), node.args);
}

// Whether passes give the node a mask of dropout.
bool IsDroppedLater(const Node& node) {
  if (node.op == "aten.dropout.default") {
    return !IsIdentityDropout(*FindOpSchema(node.op), node.args);
  }
  return node.op == "aten.scaled_dot_product_attention.default" &&
         NumberArgument(node.args, 4).value_or(0) > 0;
}

// `number` as a tensor of the type has it: to the nearest, of two as near to the even one.
double RoundedTo(DType dtype, double number) {
  if (!IsHalf(dtype) || number == 0) return number;
  int exponent = 0;
  const double fraction = std::frexp(number, &exponent);
  const int bits = dtype == DType::kBF16 ? 8 : 11;
  return std::ldexp(std::nearbyint(std::ldexp(fraction, bits)), exponent - bits);
}

class DrawExpander {
 public:
  explicit DrawExpander(Graph& graph) : graph_(graph) {
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      for (ValueId operand : OperandsOf(graph.nodes[i])) ++num_uses_[operand];
      for (ValueId output : graph.nodes[i].outputs) definer_[output] = i;
    }
    for (ValueId output : graph.outputs) ++num_uses_[output];
    FindThresholds();
  }

  absl::StatusOr<GraphDraws> Run() {
    for (const Node& node : graph_.nodes) {
      if (!node.outputs.empty() && thresholds_.contains(node.outputs[0])) continue;
      if (const std::optional<double> kept = KeptPart(node)) {
        DrawThreshold(node, *kept);
      } else if (DropsChannels(node)) {
        DropChannels(node);
      } else {
        RETURN_IF_ERROR(Draw(node));
      }
    }
    graph_.nodes = std::move(nodes_);
    return std::move(draws_);
  }

 private:
  const Node* NodeOf(const Argument& argument) const {
    const auto* id = std::get_if<ValueId>(&argument);
    if (id == nullptr || !id->valid()) return nullptr;
    const auto found = definer_.find(*id);
    return found == definer_.end() ? nullptr : &graph_.nodes[found->second];
  }
  // Whether a draw that one other node uses.
  bool IsUniformUsedOnce(const Argument& argument) const {
    const Node* node = NodeOf(argument);
    return node != nullptr && IsUniform(*node) && num_uses_.at(node->outputs[0]) == 1;
  }

  // The next number, for the draw that gave `result` in the graph as exported.
  SymInt NumberFor(ValueId result, bool is_mirrored = false, bool is_compared = false) {
    draws_.by_result.try_emplace(result,
                                 autosp::Draw{draws_.num_numbers, is_mirrored, is_compared});
    return SymInt(draws_.num_numbers++);
  }

  // What is compared with a number in `node`: the uniform numbers, if not the node itself.
  ValueId ComparedDraw(const Node& node) const {
    if (node.op.starts_with("aten.bernoulli.")) return node.outputs[0];
    const Node* operand = NodeOf(node.args[0]);
    return IsUniform(*operand) ? operand->outputs[0] : std::get<ValueId>(operand->args[0]);
  }

  // Uniform numbers, and sums with them, that are only compared with a number.
  void FindThresholds() {
    for (const Node& node : graph_.nodes) {
      if (node.op.starts_with("aten.bernoulli.") || !KeptPart(node)) continue;
      const Node* operand = NodeOf(node.args[0]);
      thresholds_.insert(operand->outputs[0]);
      if (!IsUniform(*operand)) thresholds_.insert(std::get<ValueId>(operand->args[0]));
    }
  }

  // The probability that an element of a node's result is not 0; nullopt: it draws nothing, or
  // something else.
  std::optional<double> KeptPart(const Node& node) const {
    if (node.op == "aten.bernoulli.p") return NumberArgument(node.args, 1);
    if (node.op == "aten.bernoulli.default") {
      const Node* filled = NodeOf(node.args[0]);
      const std::optional<double> kept = filled == nullptr ? std::nullopt : FilledWith(*filled);
      if (!kept) return std::nullopt;
      return RoundedTo(graph_.type(filled->outputs[0]).dtype, *kept);
    }
    if (node.op == "aten.floor.default") {
      const Node* sum = NodeOf(node.args[0]);
      const bool is_shifted =
          sum != nullptr && sum->op == "aten.add.Tensor" && num_uses_.at(sum->outputs[0]) == 1 &&
          IsUniformUsedOnce(sum->args[0]) && NumberArgument(sum->args, 2).value_or(1) == 1;
      const std::optional<double> kept = is_shifted ? NumberArgument(sum->args, 1) : std::nullopt;
      // Only of such numbers is it 0 or 1.
      return kept && *kept >= 0 && *kept <= 1 ? kept : std::nullopt;
    }
    const bool is_below = node.op == "aten.lt.Scalar" || node.op == "aten.le.Scalar";
    const bool is_above = node.op == "aten.gt.Scalar" || node.op == "aten.ge.Scalar";
    if ((!is_below && !is_above) || !IsUniformUsedOnce(node.args[0])) return std::nullopt;
    const std::optional<double> limit = NumberArgument(node.args, 1);
    if (!limit) return std::nullopt;
    return is_below ? *limit : 1 - *limit;
  }

  ValueId Emit(const Node& like, std::string op, std::vector<Argument> args, TensorType type) {
    const ValueId value = graph_.AddValue(graph_.value(like.outputs[0]).name, std::move(type));
    nodes_.push_back({std::move(op), std::move(args), {value}, like.source, like.no_grad});
    return value;
  }
  // Of the type of its first operand.
  ValueId Compute(const Node& like, std::string op, std::vector<Argument> args) {
    TensorType type = graph_.type(std::get<ValueId>(args[0]));
    return Emit(like, std::move(op), std::move(args), std::move(type));
  }
  ValueId Full(const Node& node, double number, TensorType type) {
    IntList sizes(type.sizes);
    return Emit(node, "aten.full.default",
                {std::move(sizes), number, type.dtype, None{}, None{}, None{}}, std::move(type));
  }

  TensorType ContiguousResult(const Node& node, DType dtype) const {
    TensorType type = graph_.type(node.outputs[0]);
    type.dtype = dtype;
    type.strides = ContiguousStrides(SizeValues(type));
    return type;
  }

  // The result of `node`: 1 with probability `kept`, else 0. Dropout keeps what is large.
  void DrawThreshold(const Node& node, double kept) {
    const DType result = graph_.type(node.outputs[0]).dtype;
    const TensorType type = ContiguousResult(node, IsFloating(result) ? result : DType::kF32);
    const bool is_certain = kept <= 0 || kept >= 1;
    ValueId drawn = Full(node, kept <= 0 ? 0.0 : 1.0, type);
    const bool keeps_large = node.op == "aten.floor.default" || node.op.starts_with("aten.g");
    const SymInt number =
        NumberFor(ComparedDraw(node), /*is_mirrored=*/!keeps_large, /*is_compared=*/true);
    if (!is_certain) {
      drawn = Emit(node, "aten.dropout.default",
                   {drawn, 1 - kept, true, number, EnumName{std::string(kAlwaysDraws)}}, type);
    }
    Node last = node;
    last.op = "aten.ne.Scalar";
    last.args = {drawn, SymInt(0)};
    if (result != DType::kBool) {
      TensorType truth = type;
      truth.dtype = DType::kBool;
      const ValueId kept_places =
          Emit(node, "aten.ne.Scalar", {drawn, SymInt(0)}, std::move(truth));
      last.op = "aten.to.dtype";
      last.args = {kept_places, result, false, false, None{}};
    }
    graph_.value(node.outputs[0]).type.strides = type.strides;
    nodes_.push_back(std::move(last));
  }

  // feature_dropout(x [batch, channels, ...], p, train): whole channels of each sample.
  void DropChannels(const Node& node) {
    TensorType type = ContiguousResult(node, graph_.type(node.outputs[0]).dtype);
    for (size_t i = 2; i < type.sizes.size(); ++i) type.sizes[i] = SymInt(1);
    type.strides = ContiguousStrides(SizeValues(type));
    const ValueId kept =
        Emit(node, "aten.dropout.default",
             {Full(node, 1.0, type), node.args[1], true, NumberFor(node.outputs[0])}, type);
    Node last = node;
    last.op = "aten.mul.Tensor";
    last.args = {node.args[0], kept};
    nodes_.push_back(std::move(last));
  }

  // Numbers between 0 and 1 for each element of the node's result.
  ValueId Uniform(const Node& node) {
    const TensorType type = ContiguousResult(node, DType::kF32);
    return Emit(node, std::string(kUniform), {Full(node, 0.0, type), NumberFor(node.outputs[0])},
                type);
  }
  // -log(1 - u), by log1p, which keeps the padding of u, 0.
  ValueId Exponential(const Node& node) {
    const ValueId below = Compute(node, "aten.neg.default", {Uniform(node)});
    return Compute(node, "aten.neg.default", {Compute(node, "aten.log1p.default", {below})});
  }
  // sqrt(-2 log(1 - u)) cos(2 pi v)
  ValueId Normal(const Node& node) {
    const ValueId squared = Scaled(node, Exponential(node), 2, 0);
    const ValueId length = Compute(node, "aten.sqrt.default", {squared});
    const ValueId angle = Scaled(node, Uniform(node), 2 * std::numbers::pi, 0);
    const ValueId cosine = Compute(node, "aten.cos.default", {angle});
    return Compute(node, "aten.mul.Tensor", {length, cosine});
  }
  // x * factor + addend
  ValueId Scaled(const Node& node, ValueId x, double factor, double addend) {
    if (factor != 1) x = Compute(node, "aten.mul.Tensor", {x, factor});
    if (addend != 0) x = Compute(node, "aten.add.Tensor", {x, addend, SymInt(1)});
    return x;
  }
  absl::StatusOr<ValueId> Integers(const Node& node, double low, double high) {
    constexpr double kMaxRange = 1 << 22;  // of which numbers of 24 bits reach each about as often
    if (!(high > low && high - low <= kMaxRange)) {
      return Unimplemented(Describe(graph_, node), ": random integers from ",
                           static_cast<int64_t>(low), " to below ", static_cast<int64_t>(high),
                           " are not supported; draw from at most ",
                           static_cast<int64_t>(kMaxRange),
                           " numbers, or draw outside of the model, and pass them as an input");
    }
    const ValueId scaled = Scaled(node, Uniform(node), high - low, 0);
    const ValueId from_zero = Compute(node, "aten.floor.default", {scaled});
    // Fp32 does not hold sums with a large number.
    const TensorType type = ContiguousResult(node, DType::kI64);
    const ValueId whole =
        Emit(node, "aten.to.dtype", {from_zero, type.dtype, false, false, None{}}, type);
    if (low == 0) return whole;
    return Emit(node, "aten.add.Tensor", {whole, SymInt(static_cast<int64_t>(low)), SymInt(1)},
                type);
  }
  // Below 1 also where the type of the result would round up to it: of its bits.
  ValueId Rand(const Node& node) {
    const DType dtype = graph_.type(node.outputs[0]).dtype;
    const ValueId drawn = Uniform(node);
    if (!IsHalf(dtype)) return drawn;
    const double steps = dtype == DType::kBF16 ? 1 << 8 : 1 << 11;
    const ValueId step = Compute(node, "aten.floor.default", {Scaled(node, drawn, steps, 0)});
    return Scaled(node, step, 1 / steps, 0);
  }

  // The numbers that an op draws, f32; an id that is not valid: it draws none.
  absl::StatusOr<ValueId> Drawn(const Node& node) {
    const std::string& op = node.op;
    const auto number = [&](size_t arg, double absent) {
      return NumberArgument(node.args, arg).value_or(absent);
    };
    if (IsUniform(node)) return Rand(node);
    if (op == "aten.uniform.default") {
      const double from = number(1, 0);
      return Scaled(node, Rand(node), number(2, 1) - from, from);
    }
    if (op == "aten.randn.default" || op == "aten.randn_like.default") return Normal(node);
    if (op == "aten.normal_functional.default") {
      return Scaled(node, Normal(node), number(2, 1), number(1, 0));
    }
    if (op == "aten.normal.float_float") {
      return Scaled(node, Normal(node), number(1, 1), number(0, 0));
    }
    if (op == "aten.exponential.default") {
      return Scaled(node, Exponential(node), 1 / number(1, 1), 0);
    }
    if (op == "aten.randint.default") return Integers(node, 0, number(0, 0));
    if (op == "aten.randint_like.default") return Integers(node, 0, number(1, 0));
    if (op == "aten.randint.low") return Integers(node, number(0, 0), number(1, 0));
    if (op == "aten.randint_like.low_dtype") return Integers(node, number(1, 0), number(2, 0));
    if (op == "aten.bernoulli.default" || op == "aten.bernoulli.Tensor") {
      TensorType truth = ContiguousResult(node, DType::kBool);
      const ValueId uniform = Uniform(node);
      return Emit(node, "aten.lt.Tensor", {uniform, node.args[op.ends_with("Tensor") ? 1 : 0]},
                  std::move(truth));
    }
    return ValueId{};
  }

  absl::Status Draw(const Node& node) {
    ASSIGN_OR_RETURN(const ValueId drawn, Drawn(node));
    Node last = node;
    if (IsDroppedLater(node)) {
      last.args.resize(*DrawNumberArgument(node.op), None{});
      last.args.emplace_back(NumberFor(node.outputs[0]));
    }
    if (drawn.valid()) {
      TensorType& type = graph_.value(node.outputs[0]).type;
      type = ContiguousResult(node, type.dtype);
      last.op = "aten.to.dtype";
      last.args = {drawn, type.dtype, false, false, None{}};
    }
    nodes_.push_back(std::move(last));
    return absl::OkStatus();
  }

  Graph& graph_;
  std::map<ValueId, size_t> definer_;
  std::map<ValueId, int> num_uses_;
  std::set<ValueId> thresholds_;  // uniform numbers, and sums, that dropout draws
  std::vector<Node> nodes_;
  GraphDraws draws_;
};

}  // namespace

absl::StatusOr<GraphDraws> ExpandDraws(Graph& graph) { return DrawExpander(graph).Run(); }

}  // namespace autosp
