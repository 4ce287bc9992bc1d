// The sizes of one archive in the symbols of another: where a part of a model takes a value of the
// parts before it, the sizes that export called s5 are that value's sizes.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "compiler/ir/graph.h"

namespace autosp {

class SymbolLinks {
 public:
  // States that a size of the part is `to`, a size of the model. Error: they differ at export, or
  // the part's symbol stands for another size already.
  absl::Status Bind(const SymInt& from, const SymInt& to);

  // Symbols that nothing was bound to become symbols of the model, under a name that is free.
  // Error: an expression that was bound (s5 + 1) is not the size that it stands for.
  absl::Status Finish(const SymBindings& part, SymBindings* model);

  // In the symbols of the model. Requires: Finish.
  SymInt Apply(const SymInt& size) const;
  TensorType Apply(TensorType type) const;
  Argument Apply(Argument argument) const;
  // Of each symbol of the part; a constant where the model's size is one.
  const std::map<std::string, SymExpr>& replacements() const { return replacements_; }

 private:
  void Solve(const SymBindings& part, const SymBindings& model);

  std::map<std::string, SymExpr> replacements_;
  std::vector<std::pair<SymExpr, SymExpr>> derived_;  // of the part, of the model
};

}  // namespace autosp
