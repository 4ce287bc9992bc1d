#include "compiler/import/srepr.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/import_limits.h"
#include "compiler/ir/text_cursor.h"

namespace autosp {
namespace {

using Op = SymExpr::Op;

// numerator / denominator: the sizes of an archive have parts that are no integers.
struct Fraction {
  SymExpr numerator;
  SymExpr denominator = SymExpr::Const(1);

  bool is_whole() const { return denominator.ToString() == "1"; }
};

SymExpr Product(SymExpr a, SymExpr b) {
  return SymExpr::Make(Op::kMul, {std::move(a), std::move(b)});
}

SymExpr Floor(const Fraction& fraction) {
  if (fraction.is_whole()) return fraction.numerator;
  return SymExpr::Make(Op::kFloorDiv, {fraction.numerator, fraction.denominator});
}

SymExpr Negate(SymExpr expr) { return Product(SymExpr::Const(-1), std::move(expr)); }

// -((-a) // b)
SymExpr CeilDivide(SymExpr a, SymExpr b) {
  return Negate(SymExpr::Make(Op::kFloorDiv, {Negate(std::move(a)), std::move(b)}));
}

// Cross products of symbolic denominators could double the expression at every level of a hostile
// one; sizes do not need them.
absl::StatusOr<Fraction> AddFractions(const Fraction& a, const Fraction& b) {
  if (a.denominator == b.denominator) {
    return Fraction{SymExpr::Make(Op::kAdd, {a.numerator, b.numerator}), a.denominator};
  }
  if (!a.denominator.is_const() || !b.denominator.is_const()) {
    return Unimplemented("a sum of fractions in a size expression");
  }
  return Fraction{SymExpr::Make(Op::kAdd, {Product(a.numerator, b.denominator),
                                           Product(b.numerator, a.denominator)}),
                  Product(a.denominator, b.denominator)};
}

// '0.5', precision=53
absl::StatusOr<std::string_view> FloatDigits(TextCursor& cursor) {
  RETURN_IF_ERROR(cursor.Expect('\''));
  ASSIGN_OR_RETURN(const std::string_view digits, cursor.Until('\''));
  if (cursor.Consume(',')) {
    RETURN_IF_ERROR(cursor.ExpectText("precision="));
    RETURN_IF_ERROR(cursor.Integer().status());
  }
  return digits;
}

// As Float('0.01', precision=53) has it: digits that make a double. Where they are more than people
// write (0.1 is 0.10000000000000001), those of which it is the nearest double.
absl::StatusOr<Fraction> ReadDecimal(std::string_view given) {
  constexpr size_t kMaxDigits = 15;
  double number = 0;
  std::string text(given);
  if (text.size() > kMaxDigits && absl::SimpleAtod(text, &number)) {
    const std::string shorter = absl::StrFormat("%.15g", number);
    double again = 0;
    if (absl::SimpleAtod(shorter, &again) && again == number) text = shorter;
  }
  int64_t digits = 0;
  int64_t scale = 1;
  size_t count = 0;
  bool is_after_point = false;
  const bool is_negative = text.starts_with('-');
  for (const char c : std::string_view(text).substr(is_negative ? 1 : 0)) {
    if (c == '.' && !is_after_point) {
      is_after_point = true;
      continue;
    }
    if (!absl::ascii_isdigit(c) || ++count > kMaxDigits) {
      return Unimplemented("the number ", Absl(given), " in a size expression");
    }
    digits = digits * 10 + (c - '0');
    if (is_after_point) scale *= 10;
  }
  while (scale > 1 && digits % 10 == 0) {
    digits /= 10;
    scale /= 10;
  }
  return Fraction{SymExpr::Const(is_negative ? -digits : digits), SymExpr::Const(scale)};
}

// Denominators that are numbers are positive.
absl::StatusOr<Fraction> DivideFractions(const Fraction& a, const Fraction& b) {
  if (!b.numerator.is_const()) {
    return Fraction{Product(a.numerator, b.denominator), Product(a.denominator, b.numerator)};
  }
  ASSIGN_OR_RETURN(const int64_t divisor, b.numerator.Evaluate({}));
  if (divisor == 0 || divisor == INT64_MIN) {
    return InvalidArgument("a division by ", divisor, " in a size expression");
  }
  const SymExpr numerator = Product(a.numerator, b.denominator);
  const SymExpr size = SymExpr::Const(divisor < 0 ? -divisor : divisor);
  return Fraction{divisor < 0 ? Negate(numerator) : numerator,
                  divisor == 1 || divisor == -1 ? a.denominator : Product(a.denominator, size)};
}

Fraction MultiplyFractions(const Fraction& a, const Fraction& b) {
  return {Product(a.numerator, b.numerator), Product(a.denominator, b.denominator)};
}

absl::StatusOr<Fraction> RaiseFraction(const Fraction& base, const Fraction& exponent) {
  if (exponent.numerator.is_const() && exponent.is_whole()) {
    ASSIGN_OR_RETURN(const int64_t power, exponent.numerator.Evaluate({}));
    if (power == -1 && base.is_whole()) return Fraction{base.denominator, base.numerator};
    if (power < 0) return Unimplemented("a negative power in a size expression");
  }
  if (!base.is_whole() || !exponent.is_whole()) {
    return Unimplemented("a power of a fraction in a size expression");
  }
  return Fraction{SymExpr::Make(Op::kPow, {base.numerator, exponent.numerator})};
}

constexpr std::string_view kFunctions[] = {
    "Add",        "CeilDiv",         "CeilToInt",    "CleanDiv",  "FloatTrueDiv", "FloorDiv",
    "FloorToInt", "Identity",        "IntTrueDiv",   "Max",       "Min",          "Mod",
    "Mul",        "ModularIndexing", "Pow",          "PythonMod", "ToFloat",      "TruncToInt",
    "floor",      "ceiling",         "PowByNatural",
};

class SreprParser {
 public:
  explicit SreprParser(std::string_view text) : cursor_(text) {}

  absl::StatusOr<Fraction> ParseAll() {
    ASSIGN_OR_RETURN(Fraction value, Parse());
    if (!cursor_.AtEnd()) return cursor_.Error("expected the end of the expression");
    return value;
  }

 private:
  absl::StatusOr<Fraction> Parse() {
    if (++depth_ > kMaxExprDepth) return cursor_.Error("the expression nests too deeply");
    const size_t start = cursor_.position();
    ASSIGN_OR_RETURN(const std::string_view function, cursor_.Identifier());
    RETURN_IF_ERROR(cursor_.Expect('('));
    Fraction result;
    if (function == "Integer" || function == "Rational") {
      ASSIGN_OR_RETURN(result, ParseNumber(function == "Rational"));
    } else if (function == "Float") {
      ASSIGN_OR_RETURN(result, ParseFloat());
    } else if (function == "Symbol") {
      ASSIGN_OR_RETURN(result.numerator, ParseSymbol());
    } else {
      RETURN_IF_ERROR(CheckKnown(start, function));
      std::vector<Fraction> operands;
      do {
        ASSIGN_OR_RETURN(Fraction operand, Parse());
        operands.push_back(std::move(operand));
      } while (cursor_.Consume(','));
      ASSIGN_OR_RETURN(result, Apply(function, operands));
    }
    --depth_;
    RETURN_IF_ERROR(cursor_.Expect(')'));
    return result;
  }

  // Before its operands are read, which may be of a kind that only this function takes.
  absl::Status CheckKnown(size_t start, std::string_view function) const {
    for (const std::string_view known : kFunctions) {
      if (function == known) return absl::OkStatus();
    }
    return cursor_.ErrorAt(
        start, absl::StrCat("function ", Absl(function), " is not known in size expressions"));
  }

  absl::StatusOr<Fraction> ParseNumber(bool is_rational) {
    ASSIGN_OR_RETURN(const int64_t numerator, cursor_.Integer());
    if (!is_rational) return Fraction{SymExpr::Const(numerator)};
    RETURN_IF_ERROR(cursor_.Expect(','));
    ASSIGN_OR_RETURN(const int64_t denominator, cursor_.Integer());
    if (denominator <= 0) return cursor_.Error("a denominator must be positive");
    return Fraction{SymExpr::Const(numerator), SymExpr::Const(denominator)};
  }

  absl::StatusOr<Fraction> ParseFloat() {
    ASSIGN_OR_RETURN(const std::string_view digits, FloatDigits(cursor_));
    return ReadDecimal(digits);
  }

  // 's38', positive=True, integer=True
  absl::StatusOr<SymExpr> ParseSymbol() {
    RETURN_IF_ERROR(cursor_.Expect('\''));
    ASSIGN_OR_RETURN(const std::string_view name, cursor_.Identifier());
    RETURN_IF_ERROR(cursor_.Expect('\''));
    while (cursor_.Consume(',')) {
      ASSIGN_OR_RETURN([[maybe_unused]] const std::string_view assumption, cursor_.Identifier());
      RETURN_IF_ERROR(cursor_.Expect('='));
      ASSIGN_OR_RETURN([[maybe_unused]] const std::string_view truth, cursor_.Identifier());
    }
    return SymExpr::Symbol(std::string(name));
  }

  absl::StatusOr<Fraction> Apply(std::string_view function, const std::vector<Fraction>& operands) {
    const bool is_sum = function == "Add";
    if (is_sum || function == "Mul") {
      Fraction result = operands[0];
      for (size_t i = 1; i < operands.size(); ++i) {
        if (is_sum) {
          ASSIGN_OR_RETURN(result, AddFractions(result, operands[i]));
        } else {
          result = MultiplyFractions(result, operands[i]);
        }
      }
      return result;
    }
    if (operands.size() == 2 && function == "Pow") return RaiseFraction(operands[0], operands[1]);
    if (operands.size() == 2 && (function == "IntTrueDiv" || function == "FloatTrueDiv")) {
      return DivideFractions(operands[0], operands[1]);
    }
    if (operands.size() == 1) {
      // Conversions between integers and floats leave the value of an integer as it is.
      if (function == "floor" || function == "FloorToInt") return Fraction{Floor(operands[0])};
      if (function == "Identity" || function == "ToFloat") return operands[0];
      if ((function == "ceiling" || function == "CeilToInt") && operands[0].is_whole()) {
        return operands[0];
      }
      if (function == "ceiling" || function == "CeilToInt") {
        return Fraction{CeilDivide(operands[0].numerator, operands[0].denominator)};
      }
    }
    return ApplyToWhole(function, operands);
  }

  absl::StatusOr<Fraction> ApplyToWhole(std::string_view function,
                                        const std::vector<Fraction>& operands) {
    std::vector<SymExpr> whole;
    for (const Fraction& operand : operands) {
      if (!operand.is_whole()) return Unimplemented(Absl(function), " of a fraction");
      whole.push_back(operand.numerator);
    }
    if (whole.size() == 1 && function == "TruncToInt") return Fraction{whole[0]};
    if (function == "Max" || function == "Min") {
      return Fraction{SymExpr::Make(function == "Max" ? Op::kMax : Op::kMin, std::move(whole))};
    }
    if (whole.size() == 2) {
      if (function == "FloorDiv" || function == "CleanDiv") {
        return Fraction{SymExpr::Make(Op::kFloorDiv, std::move(whole))};
      }
      if (function == "CeilDiv") return Fraction{CeilDivide(whole[0], whole[1])};
      if (function == "Mod" || function == "PythonMod") {
        return Fraction{SymExpr::Make(Op::kMod, std::move(whole))};
      }
      if (function == "PowByNatural") return Fraction{SymExpr::Make(Op::kPow, std::move(whole))};
    }
    if (whole.size() == 3 && function == "ModularIndexing") {
      return Fraction{
          SymExpr::Make(Op::kMod, {SymExpr::Make(Op::kFloorDiv, {whole[0], whole[1]}), whole[2]})};
    }
    return Unimplemented("function ", Absl(function), " does not take ", whole.size(), " operands");
  }

  TextCursor cursor_;
  int depth_ = 0;
};

// Reads arithmetic of floating numbers, down to the sizes that it is made of.
class NumberParser {
 public:
  explicit NumberParser(std::string_view text) : cursor_(text) {}

  absl::StatusOr<NumberExpr> ParseAll() {
    ASSIGN_OR_RETURN(NumberExpr value, Parse());
    if (!cursor_.AtEnd()) return cursor_.Error("expected the end of the expression");
    return value;
  }

 private:
  using NumberOp = NumberExpr::Op;

  absl::StatusOr<NumberExpr> Parse() {
    if (++depth_ > kMaxExprDepth) return cursor_.Error("the expression nests too deeply");
    const size_t start = cursor_.position();
    ASSIGN_OR_RETURN(const std::string_view function, cursor_.Identifier());
    const std::optional<NumberOp> op = OpOf(function);
    const bool is_root = function == "OpaqueUnaryFn_sqrt";
    const bool is_copy = function == "ToFloat" || function == "Identity";
    if (!op && !is_root && !is_copy && function != "Float") {
      --depth_;
      return ParseSize(start);
    }
    RETURN_IF_ERROR(cursor_.Expect('('));
    std::vector<NumberExpr> operands;
    if (function == "Float") {
      ASSIGN_OR_RETURN(NumberExpr number, ParseFloat());
      operands.push_back(std::move(number));
    } else {
      do {
        ASSIGN_OR_RETURN(NumberExpr operand, Parse());
        operands.push_back(std::move(operand));
      } while (cursor_.Consume(','));
    }
    RETURN_IF_ERROR(cursor_.Expect(')'));
    --depth_;
    const bool takes_any = op == NumberOp::kAdd || op == NumberOp::kMul;
    if (!takes_any && operands.size() != (op ? 2 : 1)) {
      return cursor_.ErrorAt(start, absl::StrCat("function ", Absl(function), " does not take ",
                                                 operands.size(), " operands"));
    }
    if (is_root) operands.push_back(NumberExpr::Const(0.5));
    return NumberExpr::Make(op.value_or(NumberOp::kPow), std::move(operands));
  }

  static std::optional<NumberOp> OpOf(std::string_view function) {
    if (function == "Add") return NumberOp::kAdd;
    if (function == "Mul") return NumberOp::kMul;
    if (function == "Pow" || function == "FloatPow") return NumberOp::kPow;
    const bool divides = function == "IntTrueDiv" || function == "FloatTrueDiv";
    return divides ? std::optional(NumberOp::kDiv) : std::nullopt;
  }

  absl::StatusOr<NumberExpr> ParseFloat() {
    ASSIGN_OR_RETURN(const std::string_view digits, FloatDigits(cursor_));
    double value = 0;
    if (!absl::SimpleAtod(Absl(digits), &value)) {
      return Unimplemented("the number ", Absl(digits), " in a size expression");
    }
    return NumberExpr::Const(value);
  }

  // What is no arithmetic of floating numbers makes an integer: Symbol('s0'), Mod(...).
  absl::StatusOr<NumberExpr> ParseSize(size_t start) {
    cursor_.Rewind(start);
    ASSIGN_OR_RETURN(const Fraction value, SreprParser(cursor_.Operand()).ParseAll());
    NumberExpr size = NumberExpr::Size(value.numerator);
    if (value.is_whole()) return size;
    return NumberExpr::Make(NumberOp::kDiv, {std::move(size), NumberExpr::Size(value.denominator)});
  }

  TextCursor cursor_;
  int depth_ = 0;
};

template <typename Parser>
auto ParseWhole(std::string_view text) -> decltype(Parser(text).ParseAll()) {
  if (text.size() > kMaxExprBytes) {
    return ResourceExhausted("a size expression has ", text.size(), " bytes, at most ",
                             kMaxExprBytes, " are read");
  }
  auto value = Parser(text).ParseAll();
  if (!value.ok()) {
    return WithContext(value.status(), "size expression ", Absl(text.substr(0, 200)));
  }
  return value;
}

}  // namespace

absl::StatusOr<SymExpr> ParseSrepr(std::string_view text) {
  ASSIGN_OR_RETURN(const Fraction value, ParseWhole<SreprParser>(text));
  return Floor(value);
}

absl::StatusOr<NumberExpr> ParseSreprNumber(std::string_view text) {
  return ParseWhole<NumberParser>(text);
}

bool IsUnbackedSymbol(std::string_view name) {
  while (!name.empty() && absl::ascii_isdigit(name.back())) name.remove_suffix(1);
  return name == "u" || name == "zuf";
}

std::string_view FindUnbackedSymbol(std::string_view srepr) {
  constexpr std::string_view kMark = "Symbol('";
  for (size_t at = srepr.find(kMark); at != std::string_view::npos; at = srepr.find(kMark, at)) {
    at += kMark.size();
    const std::string_view name = srepr.substr(at, srepr.find('\'', at) - at);
    if (IsUnbackedSymbol(name)) return name;
  }
  return {};
}

}  // namespace autosp
