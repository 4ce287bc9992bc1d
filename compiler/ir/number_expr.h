// Floating point expressions over sizes, such as s38 ** -0.5.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/ir/sym_expr.h"

namespace autosp {

// An immutable expression tree; copying shares it. The empty expression stands for "no expression".
class NumberExpr {
 public:
  enum class Op : uint8_t { kConst, kSize, kAdd, kMul, kDiv, kPow };

  NumberExpr() = default;
  static NumberExpr Const(double value);
  static NumberExpr Size(SymExpr size);
  // Applies the operation from left to right; needs an operand.
  static NumberExpr Make(Op op, std::vector<NumberExpr> operands);

  // Reads the text form printed by ToString: add(a, b) mul(a, b) div(a, b) pow(a, b) of such, of
  // floating numbers, and of texts of SymExpr.
  static absl::StatusOr<NumberExpr> Parse(std::string_view text);

  bool empty() const { return node_ == nullptr; }
  bool has_symbol() const;
  // The same with each symbol of `replacements` replaced.
  NumberExpr Substitute(const std::map<std::string, SymExpr>& replacements) const;
  // In doubles, as Python does. Error: as SymExpr::Evaluate, or no finite number comes of it.
  absl::StatusOr<double> Evaluate(const SymBindings& bindings) const;
  std::string ToString() const;

  friend bool operator==(const NumberExpr& a, const NumberExpr& b) {
    return a.ToString() == b.ToString();
  }

 private:
  struct Node;
  explicit NumberExpr(std::shared_ptr<const Node> node) : node_(std::move(node)) {}
  std::shared_ptr<const Node> node_;
};

}  // namespace autosp
