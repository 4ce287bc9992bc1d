// Reads the size expressions of an archive, which are sympy's `srepr`:
// Add(Mul(Integer(2), Symbol('s38', positive=True, integer=True)), Integer(1)).
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "compiler/ir/number_expr.h"
#include "compiler/ir/sym_expr.h"

namespace autosp {

// A fraction is accepted where the whole is an integer: Mul(Rational(1, 2), s) is s // 2. A
// function that is not known is an error that names it.
absl::StatusOr<SymExpr> ParseSrepr(std::string_view text);

// A number that is made of sizes, such as 1 / s, 0.5 * s or s ** -0.5.
absl::StatusOr<NumberExpr> ParseSreprNumber(std::string_view text);

// Symbols that torch gives to sizes which depend on values of tensors: u0, zuf1.
bool IsUnbackedSymbol(std::string_view name);
// The first such symbol named in a srepr; empty if none.
std::string_view FindUnbackedSymbol(std::string_view srepr);

}  // namespace autosp
