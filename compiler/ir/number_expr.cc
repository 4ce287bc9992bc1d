#include "compiler/ir/number_expr.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/text_cursor.h"

namespace autosp {

struct NumberExpr::Node {
  Op op = Op::kConst;
  double value = 0;                  // kConst
  SymExpr size;                      // kSize
  std::vector<NumberExpr> operands;  // the rest
};

namespace {

using Op = NumberExpr::Op;

// Deeper texts are refused, so that hostile input cannot exhaust the stack.
constexpr int kMaxDepth = 200;

struct Operation {
  std::string_view name;
  Op op;
};
constexpr Operation kOperations[] = {
    {"add", Op::kAdd}, {"mul", Op::kMul}, {"div", Op::kDiv}, {"pow", Op::kPow}};

double Apply(Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return a + b;
    case Op::kMul:
      return a * b;
    case Op::kDiv:
      return a / b;
    case Op::kPow:
      return std::pow(a, b);
    case Op::kConst:
    case Op::kSize:
      break;
  }
  return std::nan("");
}

class NumberParser {
 public:
  explicit NumberParser(std::string_view text) : cursor_(text) {}

  absl::StatusOr<NumberExpr> ParseAll() {
    ASSIGN_OR_RETURN(NumberExpr expr, Parse());
    if (!cursor_.AtEnd()) return cursor_.Error("expected the end of the number");
    return expr;
  }

 private:
  absl::StatusOr<NumberExpr> Parse() {
    if (++depth_ > kMaxDepth) return cursor_.Error("the number is nested too deeply");
    const auto operation =
        std::ranges::find(kOperations, cursor_.PeekIdentifier(), &Operation::name);
    if (operation == std::end(kOperations)) return ParseLeaf();
    cursor_.ConsumeWord(operation->name);
    RETURN_IF_ERROR(cursor_.Expect('('));
    std::vector<NumberExpr> operands;
    do {
      ASSIGN_OR_RETURN(NumberExpr operand, Parse());
      operands.push_back(std::move(operand));
    } while (cursor_.Consume(','));
    RETURN_IF_ERROR(cursor_.Expect(')'));
    --depth_;
    return NumberExpr::Make(operation->op, std::move(operands));
  }

  // A number with a point, or a size.
  absl::StatusOr<NumberExpr> ParseLeaf() {
    --depth_;
    const size_t start = cursor_.position();
    const std::string_view leaf = cursor_.Operand();
    TextCursor number(leaf);
    if (const auto read = number.Number(); read.ok() && number.AtEnd()) {
      if (const auto* value = std::get_if<double>(&*read)) return NumberExpr::Const(*value);
    }
    absl::StatusOr<SymExpr> size = SymExpr::Parse(leaf);
    if (!size.ok()) return cursor_.ErrorAt(start, std::string(size.status().message()));
    return NumberExpr::Size(*std::move(size));
  }

  TextCursor cursor_;
  int depth_ = 0;
};

}  // namespace

NumberExpr NumberExpr::Const(double value) {
  return NumberExpr(std::make_shared<const Node>(Node{Op::kConst, value, {}, {}}));
}

NumberExpr NumberExpr::Size(SymExpr size) {
  return NumberExpr(std::make_shared<const Node>(Node{Op::kSize, 0, std::move(size), {}}));
}

NumberExpr NumberExpr::Make(Op op, std::vector<NumberExpr> operands) {
  if (operands.size() == 1) return std::move(operands[0]);
  return NumberExpr(std::make_shared<const Node>(Node{op, 0, {}, std::move(operands)}));
}

absl::StatusOr<NumberExpr> NumberExpr::Parse(std::string_view text) {
  return NumberParser(text).ParseAll();
}

bool NumberExpr::has_symbol() const {
  if (empty() || node_->op == Op::kConst) return false;
  // Substitution makes constants of what has no symbol.
  if (node_->op == Op::kSize) return !node_->size.Substitute({}).is_const();
  return std::ranges::any_of(node_->operands, &NumberExpr::has_symbol);
}

NumberExpr NumberExpr::Substitute(const std::map<std::string, SymExpr>& replacements) const {
  if (empty() || node_->op == Op::kConst) return *this;
  if (node_->op == Op::kSize) return Size(node_->size.Substitute(replacements));
  std::vector<NumberExpr> operands;
  for (const NumberExpr& operand : node_->operands) {
    operands.push_back(operand.Substitute(replacements));
  }
  return Make(node_->op, std::move(operands));
}

absl::StatusOr<double> NumberExpr::Evaluate(const SymBindings& bindings) const {
  if (empty()) return Internal("the empty number has no value");
  if (node_->op == Op::kConst) return node_->value;
  if (node_->op == Op::kSize) {
    ASSIGN_OR_RETURN(const int64_t size, node_->size.Evaluate(bindings));
    return static_cast<double>(size);
  }
  ASSIGN_OR_RETURN(double result, node_->operands[0].Evaluate(bindings));
  for (size_t i = 1; i < node_->operands.size(); ++i) {
    ASSIGN_OR_RETURN(const double operand, node_->operands[i].Evaluate(bindings));
    result = Apply(node_->op, result, operand);
    if (!std::isfinite(result)) return InvalidArgument("no finite number comes of ", ToString());
  }
  return result;
}

std::string NumberExpr::ToString() const {
  if (empty()) return "";
  if (node_->op == Op::kConst) return FormatDouble(node_->value);
  if (node_->op == Op::kSize) return node_->size.ToString();
  std::string text(std::ranges::find(kOperations, node_->op, &Operation::op)->name);
  text += '(';
  for (size_t i = 0; i < node_->operands.size(); ++i) {
    absl::StrAppend(&text, i > 0 ? ", " : "", node_->operands[i].ToString());
  }
  return text + ")";
}

}  // namespace autosp
