// Integer expressions over the symbols of a torch.export archive ("s38 + 1", "2*s38", "s38//64").
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace autosp {

using SymBindings = std::map<std::string, int64_t, std::less<>>;

// An immutable expression tree; copying shares it. The empty expression stands for "no expression".
class SymExpr {
 public:
  enum class Op : uint8_t { kConst, kSymbol, kAdd, kMul, kFloorDiv, kMod, kMax, kMin, kPow };

  SymExpr() = default;
  static SymExpr Const(int64_t value);
  static SymExpr Symbol(std::string name);
  static SymExpr Make(Op op, std::vector<SymExpr> operands);

  // Reads the text form printed by ToString: + - * // % max(a, b) min(a, b) a**b, parentheses.
  static absl::StatusOr<SymExpr> Parse(std::string_view text);

  bool empty() const { return node_ == nullptr; }
  bool is_const() const;
  // The name of an expression that is one symbol; else null.
  const std::string* symbol() const;
  // The same with each symbol of `replacements` replaced; parts without symbols become constants.
  SymExpr Substitute(const std::map<std::string, SymExpr>& replacements) const;
  // Error: an unbound symbol, a division by zero, or an overflow of 64 bits, named.
  absl::StatusOr<int64_t> Evaluate(const SymBindings& bindings) const;
  std::string ToString() const;

  friend bool operator==(const SymExpr& a, const SymExpr& b) {
    return a.ToString() == b.ToString();
  }

 private:
  struct Node;
  explicit SymExpr(std::shared_ptr<const Node> node) : node_(std::move(node)) {}
  std::shared_ptr<const Node> node_;
};

}  // namespace autosp
