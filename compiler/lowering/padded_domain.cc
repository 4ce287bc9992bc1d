#include "compiler/lowering/padded_domain.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <span>
#include <string_view>

#include "compiler/ir/argument_access.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

struct Domain {
  std::string_view op;
  size_t operand = 0;
  double inside = 1;
  // Operands of this sign are all in the domain. None: no sign says that a number is between -1 and
  // 1, so padding holds what is in the middle.
  std::optional<Sign> defined_for = Sign::kPositive;
};

constexpr Domain kDomains[] = {
    {"aten.acos.default", 0, 0, std::nullopt},
    {"aten.acosh.default", 0, 2, std::nullopt},
    {"aten.addcdiv.default", 2},
    {"aten.asin.default", 0, 0, std::nullopt},
    {"aten.atan2.default", 1},
    {"aten.atanh.default", 0, 0, std::nullopt},
    {"aten.binary_cross_entropy.default", 0, 0.5, std::nullopt},
    {"aten.digamma.default", 0},
    {"aten.div.Tensor", 1},
    {"aten.div.Tensor_mode", 1},
    {"aten.erfinv.default", 0, 0, std::nullopt},
    {"aten.floor_divide.default", 1},
    {"aten.fmod.Tensor", 1},
    {"aten.hypot.default", 1},
    {"aten.lgamma.default", 0},
    {"aten.log.default", 0},
    {"aten.log10.default", 0},
    {"aten.log1p.default", 0, 0, Sign::kNonNegative},
    {"aten.log2.default", 0},
    {"aten.logit.default", 0, 0.5, std::nullopt},
    {"aten.polygamma.default", 0},
    {"aten.pow.Tensor_Tensor", 0},
    {"aten.reciprocal.default", 0},
    {"aten.remainder.Tensor", 1},
    {"aten.rsqrt.default", 0},
    {"aten.special_entr.default", 0},
    {"aten.special_ndtri.default", 0, 0.5, std::nullopt},
    {"aten.sqrt.default", 0},
    {"aten.xlogy.Tensor", 1},
};

// Where that operand is the same for all tokens, so that nothing can be put there, in the other
// one: x ** 1, 0 * log(x), and an angle or a length that is not zero.
constexpr Domain kBesideTheSame[] = {
    {"aten.atan2.default", 0},
    {"aten.hypot.default", 0},
    {"aten.pow.Tensor_Tensor", 1, 1, std::nullopt},
    {"aten.xlogy.Tensor", 0, 0, std::nullopt},
};

std::optional<Domain> FindDomain(std::span<const Domain> table, std::string_view op) {
  const auto row = std::ranges::find(table, op, &Domain::op);
  return row == table.end() ? std::nullopt : std::optional(*row);
}

// Squares and cubes are defined everywhere, roots and inverses are not.
std::optional<Domain> DomainOfPower(const Node& node) {
  const double exponent = NumberArgument(node.args, 1).value_or(0.5);
  const bool is_whole = exponent == std::floor(exponent);
  if (is_whole && exponent >= 0) return std::nullopt;
  return Domain{.op = node.op, .defined_for = exponent > 1 ? Sign::kNonNegative : Sign::kPositive};
}

// An op that chooses between two of its arguments, position by position.
struct Choice {
  size_t condition = 0;  // its operand, counted over tensors
  size_t if_true = 0;    // arguments
  size_t if_false = 0;
};

std::optional<Choice> ChoiceOf(const Node& node) {
  if (node.op.starts_with("aten.where.")) {
    return Choice{.condition = 0, .if_true = 1, .if_false = 2};
  }
  if (node.op.starts_with("aten.masked_fill.")) {
    return Choice{.condition = 1, .if_true = 2, .if_false = 0};
  }
  return std::nullopt;
}

bool IsInfinite(const Node& node, size_t arg, const std::vector<bool>& may_be_infinite) {
  if (const ValueId tensor = TensorArgument(node.args, arg); tensor.valid()) {
    return may_be_infinite[tensor.index];
  }
  const std::optional<double> number = NumberArgument(node.args, arg);
  return number && !std::isfinite(*number);
}

// What the condition of a choice must be, that no infinity is chosen. nullopt: either will do, or
// neither.
std::optional<bool> HidesInfinity(const Node& node, const Choice& choice,
                                  const std::vector<bool>& may_be_infinite) {
  const bool if_true = IsInfinite(node, choice.if_true, may_be_infinite);
  const bool if_false = IsInfinite(node, choice.if_false, may_be_infinite);
  return if_true == if_false ? std::nullopt : std::optional(if_false);
}

}  // namespace

std::optional<Argument> NumberBesideInfinity(const Graph& graph, const Node& node, size_t operand,
                                             const std::vector<bool>& may_be_infinite) {
  if (const std::optional<Choice> choice = ChoiceOf(node)) {
    if (operand != choice->condition) return std::nullopt;
    const std::optional<bool> hides = HidesInfinity(node, *choice, may_be_infinite);
    return hides ? std::optional(Argument(*hides)) : std::nullopt;
  }
  // Scores that a mask of truth values hides from attention are minus infinity.
  if (node.op == kSdpa && operand == 3) {
    const bool is_of_allowed = graph.type(OperandsOf(node)[3]).dtype == DType::kBool;
    return is_of_allowed ? std::optional(Argument(true)) : std::nullopt;
  }
  const bool scatters = node.op == "aten.scatter.src" || node.op == "aten.scatter.value";
  const bool is_filled = scatters && operand == 0 && may_be_infinite[OperandsOf(node)[0].index];
  return is_filled ? std::optional(Argument(0.0)) : std::nullopt;
}

bool MayGiveInfinity(const Graph& graph, const Node& node,
                     const std::vector<bool>& may_be_infinite) {
  if (!IsFloating(graph.type(node.outputs[0]).dtype)) return false;
  if (const std::optional<Choice> choice = ChoiceOf(node)) {
    return IsInfinite(node, choice->if_true, may_be_infinite) &&
           IsInfinite(node, choice->if_false, may_be_infinite);
  }
  static const auto& kLookUps = *new std::set<std::string_view>{
      "aten.embedding.default",    "aten.gather.default", "aten.index.Tensor",
      "aten.index_select.default", "aten.take.default",   "aten.take_along_dim.default"};
  return kLookUps.contains(node.op) && may_be_infinite[OperandsOf(node)[0].index];
}

bool LooksUpClasses(const Graph& graph, const Node& node) {
  return node.op == "aten.embedding.default" && !IsFloating(graph.type(OperandsOf(node)[0]).dtype);
}

bool HasDomain(std::string_view op) { return FindDomain(kDomains, op).has_value(); }

std::optional<Argument> NumberInDomain(const Graph& graph, const Node& node, size_t operand,
                                       const std::function<const PaddingSigns&()>& signs_of) {
  if (LooksUpClasses(graph, node)) {
    return operand == 1 ? std::optional(Argument(SymInt(0))) : std::nullopt;
  }
  std::optional<Domain> domain =
      node.op == "aten.pow.Tensor_Scalar" ? DomainOfPower(node) : FindDomain(kDomains, node.op);
  if (!domain) return std::nullopt;
  const std::vector<ValueId> operands = OperandsOf(node);
  const PaddingSigns& signs = signs_of();
  const std::optional<Domain> beside = FindDomain(kBesideTheSame, node.op);
  if (beside && signs.is_same[operands[domain->operand].index]) domain = beside;
  if (domain->operand != operand) return std::nullopt;
  const ValueId value = operands[operand];
  const DType dtype = graph.type(value).dtype;
  if (dtype == DType::kBool) return std::nullopt;
  const bool is_inside = domain->defined_for && signs.signs[value.index] >= *domain->defined_for;
  const auto is_same = [&](ValueId id) { return bool{signs.is_same[id.index]}; };
  if (is_inside || std::ranges::all_of(operands, is_same)) return std::nullopt;
  const auto whole = static_cast<int64_t>(std::ceil(domain->inside));
  return IsFloating(dtype) ? Argument(domain->inside) : Argument(SymInt(whole));
}

}  // namespace autosp
