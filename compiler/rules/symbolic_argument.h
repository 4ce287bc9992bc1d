// Arguments that the archive writes with its symbols.
#pragma once

#include <algorithm>

#include "compiler/rules/op_context.h"

namespace autosp {

// Whether an integer in the argument is an expression of symbols (S - 1): what it adds to a
// dimension, or cuts off, changes with the job, and the size of the result says how.
inline bool HasSymbols(const OpContext& context, size_t arg) {
  return std::ranges::any_of(context.Ints(arg),
                             [](const SymInt& value) { return !value.expr.empty(); });
}

}  // namespace autosp
