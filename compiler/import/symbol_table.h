// The symbols of an archive (dynamic sizes) with their values at export.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/import/exported_program.h"
#include "compiler/ir/argument.h"
#include "compiler/ir/sym_expr.h"

namespace autosp {

class SymbolTable {
 public:
  // Finds the value of every symbol of the graph and of the graphs nested in it.
  absl::Status Collect(const exported::Graph& graph);

  const SymBindings& hints() const { return hints_; }

  // A literal stays one; an expression is parsed, and must give its own value at export. A size
  // that depends on values of tensors (unbacked symbols) is an error that says so.
  absl::StatusOr<SymInt> ToSymInt(const exported::SymValue& value);
  absl::StatusOr<SymFloat> ToSymFloat(const exported::SymValue& value);

 private:
  absl::Status CollectFrom(const exported::SymValue& value);
  // Finds the value of a symbol that no size has by itself, as of a length exported as 4 * s.
  void Solve(const std::string& srepr, int64_t at_export);
  absl::StatusOr<SymExpr> Parse(const std::string& srepr);

  SymBindings hints_;
  std::map<std::string, int64_t> derived_;           // expressions, with their values at export
  std::unordered_map<std::string, SymExpr> parsed_;  // the same few expressions come thousandfold
};

}  // namespace autosp
