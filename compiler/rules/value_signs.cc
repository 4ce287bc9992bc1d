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

// Of any operand.
const Ops& GivePositive() {
  static const auto& ops = *new Ops{"aten.cosh.default", "aten.exp.default", "aten.exp2.default",
                                    "aten.sigmoid.default", "aten.softmax.int"};
  return ops;
}
const Ops& GiveNonNegative() {
  static const auto& ops = *new Ops{"aten.abs.default",
                                    "aten.hardsigmoid.default",
                                    "aten.linalg_vector_norm.default",
                                    "aten.relu.default",
                                    "aten.relu6.default",
                                    "aten.square.default",
                                    "aten.std.correction",
                                    "aten.std.dim",
                                    "aten.var.correction",
                                    "aten.var.dim"};
  return ops;
}

// What is known of operand 0 holds for the result too. Views do as well.
const Ops& KeepSign() {
  static const auto& ops =
      *new Ops{"aten.amax.default",         "aten.amin.default",    "aten.clone.default",
               "aten.cumsum.default",       "aten.flip.default",    "aten.gather.default",
               "aten.index_select.default", "aten.max.dim",         "aten.mean.dim",
               "aten.reciprocal.default",   "aten.repeat.default",  "aten.roll.default",
               "aten.rsqrt.default",        "aten.sort.default",    "aten.sqrt.default",
               "aten.sum.default",          "aten.sum.dim_IntList", "aten.topk.default"};
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
  explicit SignReader(const Graph& graph) : graph_(graph), signs_(graph.values.size()) {}

  std::vector<Sign> Run() && {
    for (const Node& node : graph_.nodes) {
      // Places, of ops that give them too, are numbers from zero.
      for (size_t i = 1; i < node.outputs.size(); ++i) {
        if (IsKept(node.op)) signs_[node.outputs[i].index] = Sign::kNonNegative;
      }
      if (!node.outputs.empty()) signs_[node.outputs[0].index] = OfResult(node);
    }
    return std::move(signs_);
  }

 private:
  static bool IsKept(std::string_view op) { return KeepSign().contains(op); }

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

  Sign OfClamp(const Node& node) const {
    const double most = NumberArgument(node.args, 2).value_or(1);
    return most > 0 ? std::max(Of(node, 0), Of(node, 1)) : Sign::kAny;
  }

  Sign OfPower(const Node& node) const {
    const double exponent = NumberArgument(node.args, 1).value_or(NAN);
    const bool is_even = std::fmod(exponent, 2) == 0;
    return is_even ? std::max(Of(node, 0), Sign::kNonNegative) : Of(node, 0);
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
    if (IsKept(op) || IsView(op)) return Of(node, 0);
    if (op == "aten.add.Tensor") return OfSum(node);
    if (op == "aten.mul.Tensor" || op == "aten.div.Tensor" || op == "aten.minimum.default") {
      return std::min(Of(node, 0), Of(node, 1));
    }
    if (op == "aten.maximum.default" || op == "aten.clamp_min.default") {
      return std::max(Of(node, 0), Of(node, 1));
    }
    if (op == "aten.clamp.default") return OfClamp(node);
    if (op == "aten.pow.Tensor_Scalar") return OfPower(node);
    if (op == "aten.full.default") return Of(node, 1);
    // log(1 + exp(beta * x)) / beta
    if (op == "aten.softplus.default") return OfNumber(NumberArgument(node.args, 1).value_or(1));
    return Sign::kAny;
  }

  const Graph& graph_;
  std::vector<Sign> signs_;
};

}  // namespace

std::vector<Sign> ValueSigns(const Graph& graph) { return SignReader(graph).Run(); }

}  // namespace autosp
