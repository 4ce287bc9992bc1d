#include "compiler/lowering/padded_domain.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>

#include "compiler/ir/argument_access.h"

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
    {"aten.div.Tensor", 1},
    {"aten.div.Tensor_mode", 1},
    {"aten.floor_divide.default", 1},
    {"aten.fmod.Tensor", 1},
    {"aten.hypot.default", 1},
    {"aten.log.default", 0},
    {"aten.log10.default", 0},
    {"aten.log1p.default", 0, 0, Sign::kNonNegative},
    {"aten.log2.default", 0},
    {"aten.logit.default", 0, 0.5, std::nullopt},
    {"aten.pow.Tensor_Tensor", 0},
    {"aten.reciprocal.default", 0},
    {"aten.remainder.Tensor", 1},
    {"aten.rsqrt.default", 0},
    {"aten.sqrt.default", 0},
    {"aten.xlogy.Tensor", 1},
};

// Squares and cubes are defined everywhere, roots and inverses are not.
std::optional<Domain> DomainOfPower(const Node& node) {
  const double exponent = NumberArgument(node.args, 1).value_or(0.5);
  const bool is_whole = exponent == std::floor(exponent);
  if (is_whole && exponent >= 0) return std::nullopt;
  return Domain{.op = node.op, .defined_for = exponent > 1 ? Sign::kNonNegative : Sign::kPositive};
}

bool IsInfinite(const Node& node, size_t arg) {
  const std::optional<double> number = NumberArgument(node.args, arg);
  return number && std::isinf(*number);
}

// Whether a tensor was filled with an infinity, or is a constant of the model, which may be one.
bool MayBeInfinite(const Graph& graph, ValueId value, const std::vector<int32_t>& definers) {
  static const auto& kShows = *new std::set<std::string_view>{
      "aten.alias.default", "aten.clone.default",   "aten.detach.default",    "aten.expand.default",
      "aten.to.dtype",      "aten.reshape.default", "aten.unsqueeze.default", "aten.view.default"};
  while (definers[value.index] >= 0) {
    const Node& node = graph.nodes[definers[value.index]];
    if (node.op == "aten.full.default" || node.op == "aten.full_like.default") {
      return IsInfinite(node, 1);
    }
    if (node.op == "aten.scalar_tensor.default") return IsInfinite(node, 0);
    if (!kShows.contains(node.op)) return false;
    value = OperandsOf(node)[0];
  }
  const GraphInput* input = graph.FindInput(value);
  return input != nullptr && input->kind == InputKind::kBuffer &&
         IsFloating(graph.type(value).dtype);
}

// The truth value of a condition for which an op gives no infinity.
std::optional<bool> HidesNothing(const Graph& graph, const Node& node, size_t operand,
                                 const std::vector<int32_t>& definers) {
  const std::vector<ValueId> values = OperandsOf(node);
  const auto is_infinite = [&](size_t i) { return MayBeInfinite(graph, values[i], definers); };
  if (operand == 0) {
    if (node.op == "aten.where.ScalarOther" && IsInfinite(node, 2)) return true;
    if (node.op == "aten.where.ScalarSelf" && IsInfinite(node, 1)) return false;
    if (node.op == "aten.where.self" && is_infinite(2)) return true;
    if (node.op == "aten.where.self" && is_infinite(1)) return false;
  }
  if (operand != 1) return std::nullopt;
  const bool fills = (node.op == "aten.masked_fill.Scalar" && IsInfinite(node, 2)) ||
                     (node.op == "aten.masked_fill.Tensor" && is_infinite(2));
  return fills ? std::optional(false) : std::nullopt;
}

}  // namespace

std::optional<Argument> NumberBesideInfinity(const Graph& graph, const Node& node, size_t operand,
                                             const std::vector<int32_t>& definers) {
  const std::optional<bool> condition = HidesNothing(graph, node, operand, definers);
  if (condition) return *condition;
  const bool scatters = node.op == "aten.scatter.src" || node.op == "aten.scatter.value";
  const bool is_filled =
      scatters && operand == 0 && MayBeInfinite(graph, OperandsOf(node)[0], definers);
  return is_filled ? std::optional(Argument(0.0)) : std::nullopt;
}

std::optional<Argument> NumberInDomain(const Graph& graph, const Node& node, size_t operand,
                                       const std::vector<Sign>& signs) {
  std::optional<Domain> domain;
  if (node.op == "aten.pow.Tensor_Scalar") {
    domain = DomainOfPower(node);
  } else {
    const auto* row = std::ranges::find_if(kDomains, [&](const Domain& each) {
      return each.op == node.op && each.operand == operand;
    });
    if (row != std::end(kDomains)) domain = *row;
  }
  if (!domain || domain->operand != operand) return std::nullopt;
  const ValueId value = OperandsOf(node)[operand];
  const DType dtype = graph.type(value).dtype;
  if (dtype == DType::kBool) return std::nullopt;
  const bool is_inside = domain->defined_for && signs[value.index] >= *domain->defined_for;
  if (is_inside) return std::nullopt;
  return IsFloating(dtype) ? Argument(domain->inside) : Argument(SymInt(1));
}

}  // namespace autosp
