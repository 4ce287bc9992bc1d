#include "compiler/passes/size_symbols.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"

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

// The value of the symbol at which the input has this size.
absl::StatusOr<int64_t> Solve(const LinearSize& linear, const SymExpr& expr, int64_t size,
                              const std::string& input, size_t dim, bool is_batch) {
  const int64_t rest = size - linear.constant;
  if (rest % linear.factor == 0 && (rest > 0 || linear.constant == 0)) return rest / linear.factor;
  const int64_t below = rest > 0 ? rest - rest % linear.factor : 0;
  const std::string more = linear.constant > 0   ? absl::StrCat(" plus ", linear.constant)
                           : linear.constant < 0 ? absl::StrCat(" less ", -linear.constant)
                                                 : "";
  return InvalidArgument(is_batch ? "the sequences of a batch: " : "training.seq_len: ", size,
                         " is not a multiple of ", linear.factor, more, ", but input ", input,
                         " was exported with ", expr.ToString(), " in dimension ", dim,
                         "; set it to ",
                         below > 0 ? absl::StrCat(below + linear.constant, " or ") : "",
                         below + linear.factor + linear.constant);
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

absl::StatusOr<SymBindings> BindSymbols(const Graph& graph, const GraphFactors& factors) {
  SymBindings bindings = graph.symbols;
  for (const GraphInput& input : graph.inputs) {
    const TensorType& type = graph.type(input.value);
    for (size_t i = 0; i < type.sizes.size(); ++i) {
      const SymExpr& expr = type.sizes[i].expr;
      const std::optional<LinearSize> linear = AsLinearSize(expr, graph.symbols);
      if (!linear) continue;
      const FactorDim& dim = factors.values[input.value.index][i];
      ASSIGN_OR_RETURN(bindings[linear->symbol],
                       Solve(*linear, expr, factors.table.Size(dim), input.name, i,
                             dim == FactorDim{factors.batch}));
    }
  }
  return bindings;
}

}  // namespace autosp
