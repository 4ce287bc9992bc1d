#include "compiler/ir/linear_size.h"

#include "absl/status/statusor.h"

namespace autosp {
namespace {

// Beyond what sizes are made of: sums and products of these and of a size fit 64 bits.
constexpr int64_t kMostFactor = int64_t{1} << 31;

// The text of factor * symbol + constant, as expressions are printed.
bool IsText(const SymExpr& expr, const LinearSize& size) {
  using Op = SymExpr::Op;
  const SymExpr term = SymExpr::Make(
      Op::kMul, {SymExpr::Const(size.factor), SymExpr::Symbol(std::string(size.symbol))});
  if (size.constant == 0) return expr == term;
  const SymExpr constant = SymExpr::Const(size.constant);
  return expr == SymExpr::Make(Op::kAdd, {term, constant}) ||
         expr == SymExpr::Make(Op::kAdd, {constant, term});
}

int64_t ScaleBound(int64_t bound, const LinearSize& size, int64_t if_open) {
  int64_t result = 0;
  if (bound == if_open || __builtin_mul_overflow(bound, size.factor, &result) ||
      __builtin_add_overflow(result, size.constant, &result)) {
    return if_open;
  }
  return result;
}

}  // namespace

SymbolRange LinearSize::Range(const SymbolRange& of_symbol) const {
  const SymbolRange open;
  return {.min = ScaleBound(of_symbol.min, *this, open.min),
          .max = ScaleBound(of_symbol.max, *this, open.max)};
}

std::optional<LinearSize> AsLinearSize(const SymExpr& expr, const SymBindings& symbols) {
  if (expr.empty() || expr.is_const()) return std::nullopt;
  for (const auto& [symbol, value] : symbols) {
    // Two points give the line, if it is one and of this symbol alone.
    const absl::StatusOr<int64_t> at_0 = expr.Evaluate({{symbol, 0}});
    const absl::StatusOr<int64_t> at_1 = expr.Evaluate({{symbol, 1}});
    LinearSize size{.symbol = symbol};
    if (!at_0.ok() || !at_1.ok() || __builtin_sub_overflow(*at_1, *at_0, &size.factor)) continue;
    size.constant = *at_0;
    const bool fits = size.factor > 0 && size.factor < kMostFactor &&
                      size.constant > -kMostFactor && size.constant < kMostFactor;
    if (fits && IsText(expr, size)) return size;
  }
  return std::nullopt;
}

}  // namespace autosp
