#include "compiler/rules/value_signs.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>

#include "compiler/ir/argument_access.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

using Ops = std::set<std::string_view>;

// These say no more than the checker knows of padding (compiler/checker/padding.cc): what is taken
// for positive here is not filled, and must be proved to be a number.

// Of any operand.
const Ops& GivePositive() {
  static const auto& ops = *new Ops{"aten._softmax.default", "aten.cosh.default",
                                    "aten.exp.default", "aten.sigmoid.default", "aten.softmax.int"};
  return ops;
}
const Ops& GiveNonNegative() {
  static const auto& ops = *new Ops{"aten.abs.default",    "aten.linalg_vector_norm.default",
                                    "aten.relu.default",   "aten.square.default",
                                    "aten.std.correction", "aten.std.dim",
                                    "aten.var.correction", "aten.var.dim"};
  return ops;
}

// What is known of operand 0 holds for the result too. Views do as well.
const Ops& KeepSign() {
  static const auto& ops = *new Ops{
      "aten.clone.default",   "aten.gather.default", "aten.mean.dim",     "aten.reciprocal.default",
      "aten.repeat.default",  "aten.rsqrt.default",  "aten.sqrt.default", "aten.sum.default",
      "aten.sum.dim_IntList", "aten.topk.default"};
  return ops;
}
bool IsView(std::string_view op) {
  const OpRule* rule = FindOpRule(op);
  return rule != nullptr &&
         (rule->layout == ResultLayout::kView || rule->layout == ResultLayout::kMaybeView);
}

Sign OfNumber(double number) {
  return number > 0 ? Sign::kPositive : number == 0 ? Sign::kNonNegative : Sign::kAny;
}

class SignReader {
 public:
  SignReader(const Graph& graph, const std::function<bool(ValueId)>& is_padded)
      : graph_(graph),
        is_padded_(is_padded),
        signs_(graph.values.size()),
        is_same_(graph.values.size(), false) {}

  PaddingSigns Run() && {
    for (const GraphInput& input : graph_.inputs) {
      is_same_[input.value.index] = !is_padded_(input.value);
    }
    for (const Node& node : graph_.nodes) Read(node);
    return {.signs = std::move(signs_), .is_same = std::move(is_same_)};
  }

 private:
  // The sign of what is the same for all tokens is not followed: a sum over them, as a divisor,
  // says nothing of the sign of the quotient to the checker.
  void Read(const Node& node) {
    const bool is_same = IsOfTheSame(node);
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const ValueId output = node.outputs[i];
      const bool is_padded = is_padded_(output);
      const Sign sign = i == 0 && is_padded ? OfResult(node) : Sign::kAny;
      signs_[output.index] = sign;
      is_same_[output.index] = !is_padded || (is_same && sign == Sign::kAny);
    }
  }

  bool IsOfTheSame(const Node& node) const {
    const OpRule* rule = FindOpRule(node.op);
    const std::vector<ValueId> operands = OperandsOf(node);
    const bool is_by_position =
        IsView(node.op) || (rule != nullptr && rule->layout == ResultLayout::kElementwise);
    return is_by_position && !operands.empty() && node.op.starts_with("aten.") &&
           std::ranges::all_of(operands, [this](ValueId id) { return bool{is_same_[id.index]}; });
  }

  // Of an argument, a tensor or a number; absent: any.
  Sign Of(const Node& node, size_t index) const {
    if (const ValueId id = TensorArgument(node.args, index); id.valid()) return signs_[id.index];
    return OfNumber(NumberArgument(node.args, index).value_or(-1));
  }

  Sign OfSum(const Node& node) const {
    const Sign a = Of(node, 0);
    const Sign b = Of(node, 1);
    const bool is_known = a != Sign::kAny && b != Sign::kAny;
    return is_known && NumberArgument(node.args, 2).value_or(1) > 0 ? std::max(a, b) : Sign::kAny;
  }

  // At least a positive number.
  Sign OfClamp(const Node& node) const {
    const double most = NumberArgument(node.args, 2).value_or(1);
    return most > 0 && Of(node, 1) == Sign::kPositive ? Sign::kPositive : Sign::kAny;
  }

  // log(1 + exp(beta * x)) / beta, and x itself where beta * x is above the threshold.
  static Sign OfSoftplus(const Node& node) {
    const bool is_logarithm = NumberArgument(node.args, 2).value_or(20) >= 0;
    const bool is_upright = NumberArgument(node.args, 1).value_or(1) > 0;
    return is_logarithm && is_upright ? Sign::kPositive : Sign::kAny;
  }

  Sign OfProduct(const Node& node) const {
    const ValueId left = TensorArgument(node.args, 0);
    const bool is_square = left == TensorArgument(node.args, 1) && left.valid() &&
                           node.op == "aten.mul.Tensor" && IsFloating(graph_.type(left).dtype);
    const Sign sign = std::min(Of(node, 0), Of(node, 1));
    return is_square ? std::max(sign, Sign::kNonNegative) : sign;
  }

  Sign OfCast(const Node& node) const {
    const DType from = graph_.type(OperandsOf(node)[0]).dtype;
    const DType to = graph_.type(node.outputs[0]).dtype;
    if (from == DType::kBool) return Sign::kNonNegative;
    // Of a fraction nothing may be left, and 256 is no byte.
    return IsFloating(to) ? Of(node, 0) : std::min(Of(node, 0), Sign::kNonNegative);
  }

  Sign OfResult(const Node& node) const {
    const std::string_view op = node.op;
    if (graph_.type(node.outputs[0]).dtype == DType::kBool) return Sign::kNonNegative;
    if (GivePositive().contains(op)) return Sign::kPositive;
    if (GiveNonNegative().contains(op)) return Sign::kNonNegative;
    if (op == "aten.to.dtype") return OfCast(node);
    if (KeepSign().contains(op) || IsView(op)) return Of(node, 0);
    if (op == "aten.add.Tensor") return OfSum(node);
    if (op == "aten.mul.Tensor" || op == "aten.div.Tensor") return OfProduct(node);
    if (op == "aten.clamp.default" || op == "aten.clamp_min.default") return OfClamp(node);
    if (op == "aten.pow.Tensor_Scalar" && NumberArgument(node.args, 1) == 2) {
      return Sign::kNonNegative;
    }
    if (op == "aten.full.default") return Of(node, 1);
    if (op == "aten.softplus.default") return OfSoftplus(node);
    return Sign::kAny;
  }

  const Graph& graph_;
  const std::function<bool(ValueId)>& is_padded_;
  std::vector<Sign> signs_;
  std::vector<bool> is_same_;
};

}  // namespace

PaddingSigns SignsInPadding(const Graph& graph, const std::function<bool(ValueId)>& is_padded) {
  return SignReader(graph, is_padded).Run();
}

}  // namespace autosp
