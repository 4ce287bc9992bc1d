#include "compiler/ir/sym_expr.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/text_cursor.h"

namespace autosp {

struct SymExpr::Node {
  Op op = Op::kConst;
  int64_t value = 0;              // kConst
  std::string name;               // kSymbol
  std::vector<SymExpr> operands;  // the rest
};

namespace {

using Op = SymExpr::Op;

// How tightly the text of an expression holds together, as in Python.
enum Precedence { kSum, kProduct, kAtom };

// Deeper texts are refused, so that hostile input cannot exhaust the stack.
constexpr int kMaxDepth = 200;

// Has no positive counterpart, so "a - 9223372036854775808" could not be read back.
constexpr std::string_view kLeast = "-9223372036854775808";

struct Printed {
  std::string text;
  Precedence precedence = kAtom;
  bool is_negative = false;  // starts with '-'
};

std::string AtLeast(Precedence precedence, const Printed& printed) {
  if (printed.precedence >= precedence && !printed.is_negative) return printed.text;
  return absl::StrCat("(", printed.text, ")");
}

Printed PrintSum(const std::vector<Printed>& terms) {
  std::string text;
  for (const Printed& term : terms) {
    const std::string part = AtLeast(kProduct, Printed{term.text, term.precedence, false});
    if (text.empty()) {
      text = part;
    } else if (part.starts_with('-') && !part.starts_with(kLeast)) {
      absl::StrAppend(&text, " - ", part.substr(1));
    } else {
      absl::StrAppend(&text, " + ", part);
    }
  }
  return {text, kSum, text.starts_with('-')};
}

Printed PrintProduct(const std::vector<Printed>& factors) {
  // A leading -1 prints as a sign.
  const bool is_negation = factors[0].text == "-1";
  std::string text = is_negation ? "-"
                     : factors[0].is_negative && factors[0].precedence == kAtom
                         ? factors[0].text
                         : AtLeast(kAtom, factors[0]);
  for (size_t i = 1; i < factors.size(); ++i) {
    if (i > 1 || !is_negation) text += '*';
    text += AtLeast(kAtom, factors[i]);
  }
  return {text, kProduct, text.starts_with('-')};
}

Printed PrintOperation(Op op, const std::vector<Printed>& operands) {
  if (op == Op::kAdd) return PrintSum(operands);
  if (op == Op::kMul) return PrintProduct(operands);
  if (op == Op::kMax || op == Op::kMin) {
    std::string text = op == Op::kMax ? "max(" : "min(";
    for (size_t i = 0; i < operands.size(); ++i) {
      absl::StrAppend(&text, i > 0 ? ", " : "", operands[i].text);
    }
    return {text + ")", kAtom, false};
  }
  const char* symbol = op == Op::kFloorDiv ? "//" : op == Op::kMod ? " % " : "**";
  return {absl::StrCat(AtLeast(kAtom, operands[0]), symbol, AtLeast(kAtom, operands[1])), kProduct,
          false};
}

absl::Status Overflow() { return absl::OutOfRangeError("result does not fit 64 bits"); }

int64_t FloorDivide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? quotient - 1 : quotient;
}

absl::StatusOr<int64_t> Power(int64_t base, int64_t exponent) {
  if (exponent < 0) return absl::InvalidArgumentError("negative exponent");
  int64_t result = 1;
  while (exponent > 0) {
    if (exponent & 1 && __builtin_mul_overflow(result, base, &result)) return Overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return Overflow();
  }
  return result;
}

absl::StatusOr<int64_t> Apply(Op op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Op::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return Overflow();
      return result;
    case Op::kMul:
      if (__builtin_mul_overflow(a, b, &result)) return Overflow();
      return result;
    case Op::kFloorDiv:
    case Op::kMod:
      if (b == 0) return absl::InvalidArgumentError("division by zero");
      if (b == -1) return op == Op::kMod ? absl::StatusOr<int64_t>(0) : Apply(Op::kMul, a, -1);
      return op == Op::kFloorDiv ? FloorDivide(a, b) : a - FloorDivide(a, b) * b;
    case Op::kMax:
      return std::max(a, b);
    case Op::kMin:
      return std::min(a, b);
    case Op::kPow:
      return Power(a, b);
    case Op::kConst:
    case Op::kSymbol:
      break;
  }
  return Internal("a constant or symbol has no operands to evaluate");
}

// sum := product (('+' | '-') product)*
// product := unary (('*' | '//' | '%') unary)*
// unary := '-' unary | atom ('**' unary)?
class ExprParser {
 public:
  explicit ExprParser(std::string_view text) : cursor_(text) {}

  absl::StatusOr<SymExpr> Parse() {
    ASSIGN_OR_RETURN(SymExpr expr, ParseSum());
    if (!cursor_.AtEnd()) return cursor_.Error("expected an operator");
    return expr;
  }

 private:
  absl::StatusOr<SymExpr> ParseSum() {
    if (++depth_ > kMaxDepth) return cursor_.Error("expression is nested too deeply");
    ASSIGN_OR_RETURN(SymExpr first, ParseProduct());
    std::vector<SymExpr> terms = {std::move(first)};
    while (true) {
      const bool is_minus = cursor_.Peek() == '-';
      if (!is_minus && cursor_.Peek() != '+') break;
      cursor_.Consume(is_minus ? '-' : '+');
      ASSIGN_OR_RETURN(SymExpr term, ParseProduct());
      terms.push_back(is_minus ? Negate(std::move(term)) : std::move(term));
    }
    --depth_;
    return SymExpr::Make(Op::kAdd, std::move(terms));
  }

  absl::StatusOr<SymExpr> ParseProduct() {
    ASSIGN_OR_RETURN(SymExpr left, ParseUnary());
    while (true) {
      Op op = Op::kMul;
      if (cursor_.ConsumeText("//")) {
        op = Op::kFloorDiv;
      } else if (cursor_.Consume('%')) {
        op = Op::kMod;
      } else if (!cursor_.Consume('*')) {
        return left;
      }
      ASSIGN_OR_RETURN(SymExpr right, ParseUnary());
      left = SymExpr::Make(op, {std::move(left), std::move(right)});
    }
  }

  absl::StatusOr<SymExpr> ParseUnary() {
    if (++depth_ > kMaxDepth) return cursor_.Error("expression is nested too deeply");
    SymExpr result;
    if (cursor_.Peek() == '-') {
      const size_t start = cursor_.position();
      // "-5" is a constant, which reaches one further than "-(5)" at the end of the range.
      if (absl::StatusOr<int64_t> value = cursor_.Integer(); value.ok()) {
        result = SymExpr::Const(*value);
      } else {
        cursor_.Rewind(start);
        cursor_.Consume('-');
        ASSIGN_OR_RETURN(SymExpr operand, ParseUnary());
        result = Negate(std::move(operand));
      }
    } else {
      ASSIGN_OR_RETURN(result, ParseAtom());
    }
    if (cursor_.ConsumeText("**")) {
      ASSIGN_OR_RETURN(SymExpr exponent, ParseUnary());
      result = SymExpr::Make(Op::kPow, {std::move(result), std::move(exponent)});
    }
    --depth_;
    return result;
  }

  absl::StatusOr<SymExpr> ParseAtom() {
    if (cursor_.Consume('(')) {
      ASSIGN_OR_RETURN(SymExpr expr, ParseSum());
      RETURN_IF_ERROR(cursor_.Expect(')'));
      return expr;
    }
    if (cursor_.PeekIdentifier().empty()) {
      ASSIGN_OR_RETURN(const int64_t value, cursor_.Integer());
      return SymExpr::Const(value);
    }
    ASSIGN_OR_RETURN(const std::string_view name, cursor_.Identifier());
    if (cursor_.Peek() != '(') return SymExpr::Symbol(std::string(name));
    if (name != "max" && name != "min") {
      return cursor_.Error(
          absl::StrCat("unknown function ", Absl(name), ", known are max and min"));
    }
    return ParseExtremum(name == "max" ? Op::kMax : Op::kMin);
  }

  absl::StatusOr<SymExpr> ParseExtremum(Op op) {
    RETURN_IF_ERROR(cursor_.Expect('('));
    std::vector<SymExpr> operands;
    do {
      ASSIGN_OR_RETURN(SymExpr operand, ParseSum());
      operands.push_back(std::move(operand));
    } while (cursor_.Consume(','));
    RETURN_IF_ERROR(cursor_.Expect(')'));
    return SymExpr::Make(op, std::move(operands));
  }

  // "a - 2*b" becomes a + (-2)*b, which prints the same again.
  static SymExpr Negate(SymExpr expr) {
    return SymExpr::Make(Op::kMul, {SymExpr::Const(-1), std::move(expr)});
  }

  TextCursor cursor_;
  int depth_ = 0;
};

bool IsVariadic(Op op) {
  return op == Op::kAdd || op == Op::kMul || op == Op::kMax || op == Op::kMin;
}

}  // namespace

SymExpr SymExpr::Const(int64_t value) {
  return SymExpr(std::make_shared<const Node>(Node{Op::kConst, value, {}, {}}));
}

SymExpr SymExpr::Symbol(std::string name) {
  return SymExpr(std::make_shared<const Node>(Node{Op::kSymbol, 0, std::move(name), {}}));
}

// Brings the expression into the one form that its text has: nested sums and products are flat, a
// product has at most one constant, in front, and an operation on one operand is that operand.
SymExpr SymExpr::Make(Op op, std::vector<SymExpr> operands) {
  if (IsVariadic(op)) {
    std::vector<SymExpr> flat;
    for (SymExpr& operand : operands) {
      if (operand.node_->op == op) {
        flat.insert(flat.end(), operand.node_->operands.begin(), operand.node_->operands.end());
      } else {
        flat.push_back(std::move(operand));
      }
    }
    operands = std::move(flat);
  }
  if (op == Op::kMul) {
    int64_t constant = 1;
    std::vector<SymExpr> rest;
    for (SymExpr& operand : operands) {
      int64_t product = 0;
      if (operand.is_const() && !__builtin_mul_overflow(constant, operand.node_->value, &product)) {
        constant = product;
      } else {
        rest.push_back(std::move(operand));
      }
    }
    if (constant != 1 || rest.empty()) rest.insert(rest.begin(), Const(constant));
    operands = std::move(rest);
  }
  if (IsVariadic(op) && operands.size() == 1) return std::move(operands[0]);
  return SymExpr(std::make_shared<const Node>(Node{op, 0, {}, std::move(operands)}));
}

absl::StatusOr<SymExpr> SymExpr::Parse(std::string_view text) { return ExprParser(text).Parse(); }

bool SymExpr::is_const() const { return node_ != nullptr && node_->op == Op::kConst; }

const std::string* SymExpr::symbol() const {
  return !empty() && node_->op == Op::kSymbol ? &node_->name : nullptr;
}

SymExpr SymExpr::Substitute(const std::map<std::string, SymExpr>& replacements) const {
  if (empty() || node_->op == Op::kConst) return *this;
  if (node_->op == Op::kSymbol) {
    const auto found = replacements.find(node_->name);
    return found == replacements.end() ? *this : found->second;
  }
  std::vector<SymExpr> operands;
  for (const SymExpr& operand : node_->operands) {
    operands.push_back(operand.Substitute(replacements));
  }
  const bool is_known = std::ranges::all_of(operands, &SymExpr::is_const);
  SymExpr result = Make(node_->op, std::move(operands));
  if (!is_known) return result;
  // What cannot be computed stays an expression, whose error comes where it is used.
  const absl::StatusOr<int64_t> value = result.Evaluate({});
  return value.ok() ? Const(*value) : result;
}

absl::StatusOr<int64_t> SymExpr::Evaluate(const SymBindings& bindings) const {
  if (empty()) return Internal("the empty expression has no value");
  if (node_->op == Op::kConst) return node_->value;
  if (node_->op == Op::kSymbol) {
    const auto binding = bindings.find(node_->name);
    if (binding == bindings.end()) return NotFound("symbol ", node_->name, " has no value");
    return binding->second;
  }
  ASSIGN_OR_RETURN(int64_t result, node_->operands[0].Evaluate(bindings));
  for (size_t i = 1; i < node_->operands.size(); ++i) {
    ASSIGN_OR_RETURN(const int64_t operand, node_->operands[i].Evaluate(bindings));
    const absl::StatusOr<int64_t> applied = Apply(node_->op, result, operand);
    if (!applied.ok()) return WithContext(applied.status(), ToString());
    result = *applied;
  }
  return result;
}

std::string SymExpr::ToString() const {
  // A local recursion, because the precedence of a part is needed beside its text.
  struct Printer {
    static Printed Print(const SymExpr& expr) {
      const Node& node = *expr.node_;
      if (node.op == Op::kConst) {
        return {absl::StrCat(node.value), kAtom, node.value < 0};
      }
      if (node.op == Op::kSymbol) return {node.name, kAtom, false};
      std::vector<Printed> operands;
      for (const SymExpr& operand : node.operands) operands.push_back(Print(operand));
      return PrintOperation(node.op, operands);
    }
  };
  return empty() ? "" : Printer::Print(*this).text;
}

}  // namespace autosp
