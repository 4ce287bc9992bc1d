// Floating values as functions of their own indices, as far as they are 0 or something else: masks
// that are added to scores (0 where a query may attend, -inf or a number like -1e9 elsewhere), and
// factors of 0 and 1 that such masks are made of.
#include <algorithm>
#include <cmath>
#include <limits>

#include "compiler/analysis/index_expr.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/filled_tensor.h"

namespace autosp {
namespace {

ZeroOr Number(double value) {
  if (value == 0) return {.is_other = ConstantIndex(0)};
  return {.is_other = ConstantIndex(1), .low = value, .high = value};
}

bool IsNever(const IndexExprPtr& expr) {
  return expr->kind == IndexExpr::Kind::kAffine && expr->affine.terms.empty() &&
         expr->affine.constant == 0;
}

bool IsAlways(const ZeroOr& value) {
  const IndexExpr& expr = *value.is_other;
  return expr.kind == IndexExpr::Kind::kAffine && expr.affine.terms.empty() &&
         expr.affine.constant != 0;
}

bool IsNumber(const ZeroOr& value, double number) {
  return value.low == number && value.high == number;
}

std::optional<ZeroOr> Known(ZeroOr value) {
  if (value.is_other->kind == IndexExpr::Kind::kUnknown) return std::nullopt;
  if (std::isnan(value.low) || std::isnan(value.high)) return std::nullopt;
  return value;
}

std::optional<ZeroOr> Product(const ZeroOr& a, const ZeroOr& b) {
  ZeroOr product{.is_other = AndOf(a.is_other, b.is_other)};
  // Infinity times 0 is not 0.
  const auto is_finite = [](const ZeroOr& x) {
    return std::isfinite(x.low) && std::isfinite(x.high);
  };
  if ((!is_finite(a) && !IsAlways(b)) || (!is_finite(b) && !IsAlways(a))) return std::nullopt;
  const auto ends = {a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high};
  product.low = std::min(ends);
  product.high = std::max(ends);
  return Known(std::move(product));
}

// Where both are something else, their sum must not be 0.
std::optional<ZeroOr> Sum(const ZeroOr& a, const ZeroOr& b) {
  if (IsNever(a.is_other)) return b;
  if (IsNever(b.is_other)) return a;
  const bool same_sign = (a.high < 0 && b.high < 0) || (a.low > 0 && b.low > 0);
  if (!same_sign) return std::nullopt;
  ZeroOr sum{.is_other = OrOf(a.is_other, b.is_other)};
  sum.low = std::min({a.low, b.low, a.low + b.low});
  sum.high = std::max({a.high, b.high, a.high + b.high});
  return Known(std::move(sum));
}

// a - b where b is 0 or all of a: a factor turned round.
std::optional<ZeroOr> Difference(const ZeroOr& a, const ZeroOr& b) {
  if (IsNever(b.is_other)) return a;
  const bool is_turned = IsAlways(a) && a.low == a.high && IsNumber(b, a.low);
  if (!is_turned || !std::isfinite(a.low)) return std::nullopt;
  return Known({.is_other = NotOf(b.is_other), .low = a.low, .high = a.low});
}

}  // namespace

std::optional<ZeroOr> IndexEvaluator::EvaluateFloat(ValueId value, const Indices& at) {
  const int32_t node = definer_[value.index];
  if (node < 0 || ++steps_ > kMaxSteps || depth_ > kMaxDepth) return std::nullopt;
  ++depth_;
  std::optional<ZeroOr> result = EvaluateFloatNode(graph_.nodes[node], at);
  --depth_;
  return result;
}

std::optional<ZeroOr> IndexEvaluator::FloatOperand(const Node& node, size_t arg,
                                                   const Indices& at) {
  if (arg >= node.args.size()) return std::nullopt;
  if (const auto* id = std::get_if<ValueId>(&node.args[arg])) {
    if (!id->valid() || graph_.type(*id).sizes.size() > at.size()) return std::nullopt;
    const DType dtype = graph_.type(*id).dtype;
    if (dtype != DType::kBool) return EvaluateFloat(*id, Stretched(*id, at));
    return Known({.is_other = Evaluate(*id, Stretched(*id, at)), .low = 1, .high = 1});
  }
  const std::optional<double> number = NumberArgument(node.args, arg);
  return number ? std::optional<ZeroOr>(Number(*number)) : std::nullopt;
}

std::optional<ZeroOr> IndexEvaluator::FloatChoice(const Node& node, size_t condition,
                                                  size_t where_true, size_t where_false,
                                                  const Indices& at) {
  const auto* id = std::get_if<ValueId>(&node.args[condition]);
  const std::optional<ZeroOr> a = FloatOperand(node, where_true, at);
  const std::optional<ZeroOr> b = FloatOperand(node, where_false, at);
  if (id == nullptr || !a || !b || graph_.type(*id).sizes.size() > at.size()) return std::nullopt;
  const IndexExprPtr chosen = Truth(*id, Stretched(*id, at));
  ZeroOr result{.is_other = OrOf(AndOf(chosen, a->is_other), AndOf(NotOf(chosen), b->is_other)),
                .low = a->low,
                .high = a->high};
  // What is never there says nothing of the range.
  if (IsNever(a->is_other)) {
    result.low = b->low;
    result.high = b->high;
  } else if (!IsNever(b->is_other)) {
    result.low = std::min(a->low, b->low);
    result.high = std::max(a->high, b->high);
  }
  return Known(std::move(result));
}

std::optional<ZeroOr> IndexEvaluator::EvaluateFloatNode(const Node& node, const Indices& at) {
  const std::string& op = node.op;
  if (const std::optional<Indices> own = ViewedAt(node, at)) {
    const Node carrier{.op = "", .args = {node.args[0]}, .outputs = {}, .source = {}};
    const std::optional<ZeroOr> value = FloatOperand(carrier, 0, *own);
    // A cast to integers cuts off what stands behind the point.
    const bool is_cut = value && !IsFloating(graph_.type(node.outputs[0]).dtype) &&
                        (std::trunc(value->low) != value->low || !std::isfinite(value->low) ||
                         std::trunc(value->high) != value->high || !std::isfinite(value->high));
    return is_cut ? std::nullopt : value;
  }
  if (op == "aten.ones.default" || op == "aten.new_ones.default" ||
      op == "aten.ones_like.default") {
    return Number(1);
  }
  if (op == "aten.zeros.default" || op == "aten.new_zeros.default" ||
      op == "aten.zeros_like.default") {
    return Number(0);
  }
  if (const std::optional<double> filled = FilledWith(node)) return Number(*filled);
  if (op == "aten.tril.default" || op == "aten.triu.default") {
    std::optional<ZeroOr> whole = FloatOperand(node, 0, at);
    if (whole) whole->is_other = AndOf(Triangle(node, at), whole->is_other);
    return whole ? Known(*std::move(whole)) : std::nullopt;
  }
  if (op.starts_with("aten.where.")) return FloatChoice(node, 0, 1, 2, at);
  if (op.starts_with("aten.masked_fill.")) return FloatChoice(node, 1, 2, 0, at);
  const std::optional<ZeroOr> a = FloatOperand(node, 0, at);
  const std::optional<ZeroOr> b = FloatOperand(node, 1, at);
  if (!a || !b) return std::nullopt;
  const bool is_scaled = node.args.size() > 2 && NumberArgument(node.args, 2) != 1.0;
  if (op.starts_with("aten.mul.")) return Product(*a, *b);
  if (is_scaled) return std::nullopt;
  if (op.starts_with("aten.add.")) return Sum(*a, *b);
  if (op.starts_with("aten.sub.")) return Difference(*a, *b);
  if (op.starts_with("aten.rsub.")) return Difference(*b, *a);
  return std::nullopt;
}

// Whether a value is followed as one that is 0 or something else: a floating one, or a triangle of
// integers, which no affine function is.
bool IndexEvaluator::IsChosen(ValueId value) const {
  if (IsFloating(graph_.type(value).dtype)) return true;
  for (int depth = 0; depth < 16 && graph_.type(value).dtype != DType::kBool; ++depth) {
    const int32_t definer = definer_[value.index];
    if (definer < 0) return false;
    const Node& node = graph_.nodes[definer];
    if (node.op == "aten.tril.default" || node.op == "aten.triu.default") return true;
    const Indices anywhere(graph_.type(value).sizes.size(), ConstantIndex(0));
    if (!ViewedAt(node, anywhere)) return false;
    value = std::get<ValueId>(node.args[0]);
  }
  return false;
}

IndexExprPtr IndexEvaluator::CompareFloat(const Node& node, std::string_view op,
                                          const Indices& at) {
  const auto* id = std::get_if<ValueId>(&node.args[0]);
  const std::optional<double> number = NumberArgument(node.args, 1);
  if (id == nullptr || !number || !IsChosen(*id)) return UnknownIndex();
  const std::optional<ZeroOr> value = FloatOperand(node, 0, at);
  if (!value) return UnknownIndex();
  const IndexExprPtr is_zero = NotOf(value->is_other);
  const bool is_other = IsNumber(*value, *number);
  if (op == "aten.eq" && *number == 0) return is_zero;
  if (op == "aten.ne" && *number == 0) return value->is_other;
  if (op == "aten.eq" && is_other) return value->is_other;
  if (op == "aten.ne" && is_other) return is_zero;
  if (op == "aten.lt" && *number == 0 && value->high < 0) return value->is_other;
  if (op == "aten.ge" && *number == 0 && value->high < 0) return is_zero;
  if (op == "aten.gt" && *number == 0 && value->low > 0) return value->is_other;
  if (op == "aten.le" && *number == 0 && value->low > 0) return is_zero;
  return UnknownIndex();
}

}  // namespace autosp
