// Sizes that are a multiple of one symbol, and a constant more or less.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "compiler/ir/sym_expr.h"
#include "compiler/ir/symbol_range.h"

namespace autosp {

// factor * symbol + constant: what torch.export writes for seq = 4 * Dim("n"), or for labels that
// are one longer than their tokens.
struct LinearSize {
  std::string symbol;
  int64_t factor = 1;  // above 0
  int64_t constant = 0;

  // Of the sizes. Bounds that 64 bits do not hold are open.
  SymbolRange Range(const SymbolRange& of_symbol) const;
};

// nullopt: the size is a number, or follows from its symbols in another way.
std::optional<LinearSize> AsLinearSize(const SymExpr& expr, const SymBindings& symbols);

}  // namespace autosp
