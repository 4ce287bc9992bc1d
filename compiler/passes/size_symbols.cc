#include "compiler/passes/size_symbols.h"

#include <optional>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/linear_size.h"

namespace autosp {
namespace {

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

absl::StatusOr<SymBindings> BindSymbols(const Graph& graph, const GraphFactors& factors) {
  SymBindings bindings = graph.symbols;
  std::set<std::string> bound;
  // The batch and the sequence have the sizes of the job; what follows them reads their symbols.
  for (const bool has_role : {true, false}) {
    for (const GraphInput& input : graph.inputs) {
      const TensorType& type = graph.type(input.value);
      for (size_t i = 0; i < type.sizes.size(); ++i) {
        const SymExpr& expr = type.sizes[i].expr;
        const std::optional<LinearSize> linear = AsLinearSize(expr, graph.symbols);
        const FactorDim& dim = factors.values[input.value.index][i];
        const bool is_batch = dim == FactorDim{factors.batch};
        if (!linear || has_role != (is_batch || dim == FactorDim{factors.seq})) continue;
        if (!has_role && bound.contains(linear->symbol)) continue;
        ASSIGN_OR_RETURN(bindings[linear->symbol],
                         Solve(*linear, expr, factors.table.Size(dim), input.name, i, is_batch));
        bound.insert(linear->symbol);
      }
    }
  }
  return bindings;
}

}  // namespace autosp
