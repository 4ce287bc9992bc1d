#include "compiler/lowering/padded_domain.h"

#include <algorithm>
#include <cmath>
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

// The truth value of a condition for which an op gives no infinity.
std::optional<bool> HidesNothing(const Node& node, size_t operand) {
  if (node.op == "aten.masked_fill.Scalar" && operand == 1 && IsInfinite(node, 2)) return false;
  if (node.op == "aten.where.ScalarOther" && operand == 0 && IsInfinite(node, 2)) return true;
  if (node.op == "aten.where.ScalarSelf" && operand == 0 && IsInfinite(node, 1)) return false;
  return std::nullopt;
}

}  // namespace

std::optional<Argument> NumberBesideInfinity(const Graph& graph, const Node& node, size_t operand,
                                             const std::vector<int32_t>& definers) {
  if (const std::optional<bool> condition = HidesNothing(node, operand)) return *condition;
  const bool scatters = node.op == "aten.scatter.src" || node.op == "aten.scatter.value";
  if (!scatters || operand != 0) return std::nullopt;
  const int32_t definer = definers[OperandsOf(node)[0].index];
  if (definer < 0) return std::nullopt;
  const Node& filled = graph.nodes[definer];
  const bool is_filled = filled.op == "aten.full.default" || filled.op == "aten.full_like.default";
  if (!is_filled || !IsInfinite(filled, 1)) return std::nullopt;
  return Argument(0.0);
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
