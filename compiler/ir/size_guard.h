// Relations between sizes that torch.export took for granted: of `if length % 2 == 0:` one branch
// is in the graph, and an int() of a size is a constant in it. An archive lists them as Python
// (guards_code), and PyTorch refuses to run its module where one does not hold.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/ir/argument.h"
#include "compiler/ir/sym_expr.h"

namespace autosp {

// Immutable; copying shares what was read.
class SizeGuard {
 public:
  // The size of dimension `dim` of the input at `path`: L['batch']['ids'] is {"batch", "ids"}. Of
  // kSymbol: the symbol of that name. nullopt: there is no such input, or symbol.
  static constexpr int64_t kSymbol = -1;
  using SizeOf =
      std::function<std::optional<SymInt>(const std::vector<std::string>& path, int64_t dim)>;

  // `text`: Python, or sympy's srepr (import/srepr.h), which assertions in a graph are kept as.
  // What cannot be read is a guard all the same; Holds says why.
  static SizeGuard Parse(std::string_view text, const SizeOf& size_of);

  // As Python computes it. Sizes without an expression are as exported.
  // Error: the text is not understood, or cannot be computed (a division by zero).
  absl::StatusOr<bool> Holds(const SymBindings& bindings) const;

  SizeGuard Substitute(const std::map<std::string, SymExpr>& replacements) const;

  // For people: "(ids.shape[1] % 2) == 0", cut short where it is long.
  std::string ToString() const;
  // "ids.shape[1] is 37": each size that it names. Requires: bindings of all its symbols.
  std::string SizesToString(const SymBindings& bindings) const;

  struct Node;

 private:
  std::string text_;
  absl::StatusOr<std::shared_ptr<const Node>> root_;
  std::map<std::string, SymInt> sizes_;  // by their own text
};

}  // namespace autosp
