#include "compiler/ir/size_guard.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <initializer_list>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/text_cursor.h"

namespace autosp {

struct SizeGuard::Node {
  std::string op;  // "+", "and", "math.ceil"; empty: a number; "size": one of sizes_
  std::variant<int64_t, double> number;
  std::string size;
  std::vector<std::shared_ptr<const Node>> operands;
};

namespace {

using Node = SizeGuard::Node;
using NodePtr = std::shared_ptr<const Node>;
// As Python has them; a truth value is the integer 0 or 1, as it is there.
using Number = std::variant<int64_t, double>;

constexpr int kMaxDepth = 100;
// Bounds the depth of long sums too.
constexpr size_t kMaxBytes = 4 << 10;
constexpr size_t kMaxShownBytes = 200;

double AsDouble(const Number& number) {
  return std::visit([](auto value) { return static_cast<double>(value); }, number);
}

bool IsTrue(const Number& number) { return AsDouble(number) != 0; }

// "L['x'].size()[1]" as "x.shape[1]"; parts of a path that are in the way are left.
std::string Readable(std::string text) {
  return absl::StrReplaceAll(text, {{"L['", ""},
                                    {"'].size()[", ".shape["},
                                    {"'].", "."},
                                    {".size()[", ".shape["},
                                    {"']['", "."},
                                    {"'][", "["},
                                    {"].size()[", "].shape["},
                                    {"torch.sym_", ""},
                                    {"Symbol('", ""},
                                    {"', positive=True, integer=True)", ""}});
}

class Parser {
 public:
  Parser(std::string_view text, const SizeGuard::SizeOf& size_of,
         std::map<std::string, SymInt>& sizes)
      : cursor_(text), text_(text), size_of_(size_of), sizes_(sizes) {}

  absl::StatusOr<NodePtr> ParseAll() {
    if (text_.size() > kMaxBytes) {
      return ResourceExhausted("it has ", text_.size(), " bytes; at most ", kMaxBytes, " are read");
    }
    ASSIGN_OR_RETURN(NodePtr root, ParseOr());
    if (!cursor_.AtEnd()) return cursor_.Error("expected the end of the relation");
    return root;
  }

 private:
  static NodePtr Make(std::string op, std::vector<NodePtr> operands) {
    return std::make_shared<Node>(
        Node{.op = std::move(op), .number = {}, .size = {}, .operands = std::move(operands)});
  }

  absl::StatusOr<NodePtr> ParseOr() {
    if (++depth_ > kMaxDepth) return cursor_.Error("the relation nests too deeply");
    ASSIGN_OR_RETURN(NodePtr left, ParseAnd());
    while (cursor_.ConsumeWord("or")) {
      ASSIGN_OR_RETURN(NodePtr right, ParseAnd());
      left = Make("or", {std::move(left), std::move(right)});
    }
    --depth_;
    return left;
  }

  absl::StatusOr<NodePtr> ParseAnd() {
    ASSIGN_OR_RETURN(NodePtr left, ParseComparison());
    while (cursor_.ConsumeWord("and")) {
      ASSIGN_OR_RETURN(NodePtr right, ParseComparison());
      left = Make("and", {std::move(left), std::move(right)});
    }
    return left;
  }

  // a < b < c is a < b and b < c.
  absl::StatusOr<NodePtr> ParseComparison() {
    if (cursor_.ConsumeWord("not")) {
      if (++depth_ > kMaxDepth) return cursor_.Error("the relation nests too deeply");
      ASSIGN_OR_RETURN(NodePtr operand, ParseComparison());
      --depth_;
      return Make("not", {std::move(operand)});
    }
    ASSIGN_OR_RETURN(NodePtr left, ParseBits());
    NodePtr all;
    while (true) {
      const std::string op = ConsumeFirst({"==", "!=", "<=", ">=", "<", ">"});
      if (op.empty()) return all != nullptr ? all : left;
      ASSIGN_OR_RETURN(NodePtr right, ParseBits());
      NodePtr one = Make(op, {left, right});
      all = all != nullptr ? Make("and", {std::move(all), std::move(one)}) : std::move(one);
      left = std::move(right);
    }
  }

  // n & (n - 1) == 0, where n is a power of two, is n & (n - 1), compared.
  absl::StatusOr<NodePtr> ParseBits() { return ParseChain({"|"}, &Parser::ParseDifferentBits); }

  absl::StatusOr<NodePtr> ParseDifferentBits() {
    return ParseChain({"^"}, &Parser::ParseCommonBits);
  }

  absl::StatusOr<NodePtr> ParseCommonBits() { return ParseChain({"&"}, &Parser::ParseShift); }

  absl::StatusOr<NodePtr> ParseShift() { return ParseChain({"<<", ">>"}, &Parser::ParseSum); }

  absl::StatusOr<NodePtr> ParseSum() { return ParseChain({"+", "-"}, &Parser::ParseProduct); }

  absl::StatusOr<NodePtr> ParseProduct() {
    return ParseChain({"*", "//", "/", "%"}, &Parser::ParseUnary);
  }

  // a - b - c is (a - b) - c.
  absl::StatusOr<NodePtr> ParseChain(std::initializer_list<std::string_view> operators,
                                     absl::StatusOr<NodePtr> (Parser::*parse_operand)()) {
    ASSIGN_OR_RETURN(NodePtr left, (this->*parse_operand)());
    while (true) {
      const std::string op = ConsumeFirst(operators);
      if (op.empty()) return left;
      ASSIGN_OR_RETURN(NodePtr right, (this->*parse_operand)());
      left = Make(op, {std::move(left), std::move(right)});
    }
  }

  // -a ** b is -(a ** b), and a ** -b is a ** (-b).
  absl::StatusOr<NodePtr> ParseUnary() {
    if (++depth_ > kMaxDepth) return cursor_.Error("the relation nests too deeply");
    NodePtr result;
    if (cursor_.Consume('-')) {
      ASSIGN_OR_RETURN(NodePtr operand, ParseUnary());
      result = Make("neg", {std::move(operand)});
    } else {
      ASSIGN_OR_RETURN(result, ParsePrimary());
      if (cursor_.ConsumeText("**")) {
        ASSIGN_OR_RETURN(NodePtr exponent, ParseUnary());
        result = Make("**", {std::move(result), std::move(exponent)});
      }
    }
    --depth_;
    return result;
  }

  absl::StatusOr<NodePtr> ParsePrimary() {
    if (cursor_.Consume('(')) {
      ASSIGN_OR_RETURN(NodePtr inner, ParseOr());
      RETURN_IF_ERROR(cursor_.Expect(')'));
      return inner;
    }
    const std::string_view word = cursor_.PeekIdentifier();
    if (word == "L") return ParseSize();
    if (word == "Symbol") return ParseSymbol();
    if (word.empty()) {
      ASSIGN_OR_RETURN(const Number number, cursor_.Number());
      return std::make_shared<Node>(Node{.op = "", .number = number, .size = {}, .operands = {}});
    }
    return ParseCall();
  }

  absl::StatusOr<NodePtr> ParseCall() {
    ASSIGN_OR_RETURN(const std::string_view function, cursor_.Identifier());
    RETURN_IF_ERROR(cursor_.Expect('('));
    std::vector<NodePtr> operands;
    do {
      ASSIGN_OR_RETURN(NodePtr operand, ParseOr());
      operands.push_back(std::move(operand));
    } while (cursor_.Consume(','));
    RETURN_IF_ERROR(cursor_.Expect(')'));
    return Make(std::string(function), std::move(operands));
  }

  // L['batch'][0].size()[1], and L['batch'].ids.size()[1] of a named tuple
  absl::StatusOr<NodePtr> ParseSize() {
    const size_t start = cursor_.position();
    RETURN_IF_ERROR(cursor_.ExpectWord("L"));
    std::vector<std::string> path;
    std::string name = "L";
    while (!cursor_.ConsumeText(".size()[")) {
      RETURN_IF_ERROR(cursor_.Consume('.') ? ParseFields(path, name) : ParseKey(path, name));
    }
    ASSIGN_OR_RETURN(const int64_t dim, cursor_.Integer());
    RETURN_IF_ERROR(cursor_.Expect(']'));
    absl::StrAppend(&name, ".size()[", dim, "]");
    return MakeSize(start, std::move(name), path, dim);
  }

  // ['batch'] or [0]
  absl::Status ParseKey(std::vector<std::string>& path, std::string& name) {
    RETURN_IF_ERROR(cursor_.Expect('['));
    ASSIGN_OR_RETURN(const std::string_view key, cursor_.Until(']'));
    const bool is_name = key.size() >= 2 && key.front() == '\'' && key.back() == '\'';
    path.emplace_back(is_name ? key.substr(1, key.size() - 2) : key);
    absl::StrAppend(&name, "[", Absl(key), "]");
    return absl::OkStatus();
  }

  // text.ids.size, where size() is of the tensor.
  absl::Status ParseFields(std::vector<std::string>& path, std::string& name) {
    constexpr std::string_view kMethod = ".size";
    ASSIGN_OR_RETURN(std::string_view fields, cursor_.Identifier());
    if (fields.ends_with(kMethod)) {
      fields.remove_suffix(kMethod.size());
      cursor_.Rewind(cursor_.position() - kMethod.size());
    }
    for (const absl::string_view field : absl::StrSplit(Absl(fields), '.'))
      path.emplace_back(field);
    absl::StrAppend(&name, ".", Absl(fields));
    return absl::OkStatus();
  }

  // Symbol('s27', positive=True, integer=True)
  absl::StatusOr<NodePtr> ParseSymbol() {
    const size_t start = cursor_.position();
    RETURN_IF_ERROR(cursor_.ExpectWord("Symbol"));
    RETURN_IF_ERROR(cursor_.Expect('('));
    RETURN_IF_ERROR(cursor_.Expect('\''));
    ASSIGN_OR_RETURN(const std::string_view word, cursor_.Until('\''));
    RETURN_IF_ERROR(cursor_.Until(')').status());
    std::string name(word);
    return MakeSize(start, name, {name}, SizeGuard::kSymbol);
  }

  // `start`: where `name` stands.
  absl::StatusOr<NodePtr> MakeSize(size_t start, std::string name,
                                   const std::vector<std::string>& path, int64_t dim) {
    const std::optional<SymInt> size = size_of_(path, dim);
    if (!size) return cursor_.ErrorAt(start, absl::StrCat(name, " is of no input"));
    sizes_.emplace(name, *size);
    return std::make_shared<Node>(
        Node{.op = "size", .number = {}, .size = std::move(name), .operands = {}});
  }

  std::string ConsumeFirst(std::initializer_list<std::string_view> tokens) {
    for (const std::string_view token : tokens) {
      // ** is no product; it is read with its base.
      if (token == "*" && cursor_.PeekText("**")) continue;
      if (cursor_.ConsumeText(token)) return std::string(token);
    }
    return "";
  }

  TextCursor cursor_;
  std::string_view text_;
  const SizeGuard::SizeOf& size_of_;
  std::map<std::string, SymInt>& sizes_;
  int depth_ = 0;
};

absl::Status TooLarge() { return Unimplemented("a number in it is past 64 bits"); }

bool IsAnyOf(std::string_view op, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), op) != names.end();
}

absl::StatusOr<Number> ComputeBits(std::string_view op, int64_t a, int64_t b) {
  if (op == "&") return a & b;
  if (op == "|") return a | b;
  if (op == "^") return a ^ b;
  if (b < 0) return InvalidArgument("it shifts by a negative number");
  constexpr int64_t kMaxShift = 62;
  if (op == ">>") return a >> std::min(b, kMaxShift + 1);
  int64_t product = 0;
  if (b > kMaxShift || __builtin_mul_overflow(a, int64_t{1} << b, &product)) return TooLarge();
  return product;
}

// Sizes are computed in the same way, but for differences and for powers that are fractions.
absl::StatusOr<Number> ComputeIntegers(std::string_view op, int64_t a, int64_t b) {
  using Op = SymExpr::Op;
  if (op == "-") {
    int64_t difference = 0;
    if (__builtin_sub_overflow(a, b, &difference)) return TooLarge();
    return difference;
  }
  if (op == "**" && b < 0 && a != 0)
    return std::pow(static_cast<double>(a), static_cast<double>(b));
  const Op kind = op == "+"    ? Op::kAdd
                  : op == "*"  ? Op::kMul
                  : op == "//" ? Op::kFloorDiv
                  : op == "%"  ? Op::kMod
                               : Op::kPow;
  const absl::StatusOr<int64_t> result =
      SymExpr::Make(kind, {SymExpr::Const(a), SymExpr::Const(b)}).Evaluate({});
  if (absl::IsOutOfRange(result.status())) return TooLarge();
  if (!result.ok()) return InvalidArgument("it divides by zero");
  return *result;
}

absl::StatusOr<Number> ComputeFloats(std::string_view op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") return std::pow(a, b);
  if (b == 0) return InvalidArgument("it divides by zero");
  if (op == "/") return a / b;
  const double floor = std::floor(a / b);
  if (op == "//") return floor;
  return a - floor * b;  // "%"
}

template <typename T>
bool Compare(std::string_view op, T a, T b) {
  if (op == "==") return a == b;
  if (op == "!=") return a != b;
  if (op == "<") return a < b;
  if (op == "<=") return a <= b;
  return op == ">" ? a > b : a >= b;
}

absl::StatusOr<Number> ToInteger(std::string_view op, const Number& number) {
  if (std::holds_alternative<int64_t>(number)) return number;
  const double value = std::get<double>(number);
  // A double of 2^63 is past what 64 bits hold.
  if (!(std::abs(value) < 0x1p63)) return TooLarge();
  const double whole = op == "math.ceil"    ? std::ceil(value)
                       : op == "math.floor" ? std::floor(value)
                       : op == "round"      ? std::nearbyint(value)
                                            : std::trunc(value);
  return static_cast<int64_t>(whole);
}

absl::StatusOr<Number> Compute(const std::string& op, const std::vector<Number>& operands);

// What sympy's srepr calls the operators.
std::string_view OperatorOf(std::string_view function) {
  static const auto& kOperators =
      *new std::map<std::string_view, std::string_view>{{"Add", "+"},
                                                        {"And", "and"},
                                                        {"BitwiseFn_bitwise_and", "&"},
                                                        {"BitwiseFn_bitwise_or", "|"},
                                                        {"BitwiseFn_bitwise_xor", "^"},
                                                        {"CleanDiv", "//"},
                                                        {"Equality", "=="},
                                                        {"FloatTrueDiv", "/"},
                                                        {"FloorDiv", "//"},
                                                        {"GreaterThan", ">="},
                                                        {"IntTrueDiv", "/"},
                                                        {"LShift", "<<"},
                                                        {"LessThan", "<="},
                                                        {"Mod", "%"},
                                                        {"Mul", "*"},
                                                        {"Or", "or"},
                                                        {"Pow", "**"},
                                                        {"PowByNatural", "**"},
                                                        {"PythonMod", "%"},
                                                        {"RShift", ">>"},
                                                        {"StrictLessThan", "<"},
                                                        {"StrictGreaterThan", ">"},
                                                        {"Unequality", "!="}};
  const auto found = kOperators.find(function);
  return found == kOperators.end() ? std::string_view() : found->second;
}

// Add(a, b, c)
absl::StatusOr<Number> Fold(std::string_view op, const std::vector<Number>& operands) {
  Number result = operands[0];
  for (size_t i = 1; i < operands.size(); ++i) {
    ASSIGN_OR_RETURN(result, Compute(std::string(op), {result, operands[i]}));
  }
  return result;
}

absl::StatusOr<Number> Call(const std::string& op, const std::vector<Number>& operands) {
  const size_t count = operands.size();
  if (const std::string_view symbol = OperatorOf(op); !symbol.empty() && count > 1) {
    return Fold(symbol, operands);
  }
  if (count == 1) {
    const Number& operand = operands[0];
    if (op == "Integer" || op == "Identity") return operand;
    if (op == "torch.sym_float" || op == "float" || op == "ToFloat") return AsDouble(operand);
    if (IsAnyOf(op, {"math.trunc", "math.ceil", "math.floor", "round", "int", "torch.sym_int"})) {
      return ToInteger(op, operand);
    }
    if (IsAnyOf(op, {"math.sqrt", "torch._sym_sqrt", "torch.sym_sqrt"})) {
      return std::sqrt(AsDouble(operand));
    }
    if (op == "torch.sym_not" || op == "Not") return int64_t{!IsTrue(operand)};
    if (op == "bool") return int64_t{IsTrue(operand)};
    if (op == "abs") return AsDouble(operand) >= 0 ? operand : Compute("neg", operands);
  }
  const bool is_max = op == "torch.sym_max" || op == "max" || op == "Max";
  if (count > 1 && (is_max || op == "torch.sym_min" || op == "min" || op == "Min")) {
    Number result = operands[0];
    for (const Number& operand : operands) {
      const bool is_better =
          is_max ? AsDouble(operand) > AsDouble(result) : AsDouble(operand) < AsDouble(result);
      if (is_better) result = operand;
    }
    return result;
  }
  if (count == 3 && op == "torch.sym_ite") return IsTrue(operands[0]) ? operands[1] : operands[2];
  return Unimplemented("function ", op, " of ", count, " operands is not known");
}

absl::StatusOr<Number> Compute(const std::string& op, const std::vector<Number>& operands) {
  if (op == "not") return int64_t{!IsTrue(operands[0])};
  if (op == "and") return IsTrue(operands[0]) ? operands[1] : operands[0];
  if (op == "or") return IsTrue(operands[0]) ? operands[0] : operands[1];
  if (op == "neg") {
    if (const auto* integer = std::get_if<int64_t>(&operands[0])) {
      return ComputeIntegers("-", 0, *integer);
    }
    return -std::get<double>(operands[0]);
  }
  const bool is_infix =
      operands.size() == 2 && !std::isalpha(static_cast<unsigned char>(op[0])) && op[0] != '_';
  if (!is_infix) return Call(op, operands);
  const auto* a = std::get_if<int64_t>(&operands[0]);
  const auto* b = std::get_if<int64_t>(&operands[1]);
  const bool are_integers = a != nullptr && b != nullptr;
  if (IsAnyOf(op, {"&", "|", "^", "<<", ">>"})) {
    if (!are_integers) return InvalidArgument("it takes bits of a number with a fraction");
    return ComputeBits(op, *a, *b);
  }
  if (op[0] == '=' || op[0] == '!' || op[0] == '<' || op[0] == '>') {
    const bool is_so = are_integers ? Compare(op, *a, *b)
                                    : Compare(op, AsDouble(operands[0]), AsDouble(operands[1]));
    return int64_t{is_so};
  }
  if (are_integers && op != "/") return ComputeIntegers(op, *a, *b);
  return ComputeFloats(op, AsDouble(operands[0]), AsDouble(operands[1]));
}

using Sizes = std::map<std::string, int64_t>;

// Requires: the depth that the parser allows.
absl::StatusOr<Number> Evaluate(const Node& node, const Sizes& sizes) {
  if (node.op.empty()) return node.number;
  if (node.op == "size") return sizes.at(node.size);
  std::vector<Number> operands;
  for (const NodePtr& operand : node.operands) {
    ASSIGN_OR_RETURN(const Number value, Evaluate(*operand, sizes));
    // What Python does not evaluate may divide by zero.
    if (node.op == "and" && !IsTrue(value)) return value;
    if (node.op == "or" && IsTrue(value)) return value;
    operands.push_back(value);
  }
  if (node.op == "and" || node.op == "or") return operands.back();
  return Compute(node.op, operands);
}

absl::StatusOr<int64_t> SizeAt(const SymInt& size, const SymBindings& bindings) {
  return size.expr.empty() ? size.value : size.expr.Evaluate(bindings);
}

}  // namespace

SizeGuard SizeGuard::Parse(std::string_view text, const SizeOf& size_of) {
  SizeGuard guard;
  guard.text_ = std::string(text);
  guard.root_ = Parser(text, size_of, guard.sizes_).ParseAll();
  return guard;
}

absl::StatusOr<bool> SizeGuard::Holds(const SymBindings& bindings) const {
  RETURN_IF_ERROR(root_.status());
  Sizes sizes;
  for (const auto& [name, size] : sizes_) {
    ASSIGN_OR_RETURN(sizes[name], SizeAt(size, bindings));
  }
  ASSIGN_OR_RETURN(const Number value, Evaluate(**root_, sizes));
  return IsTrue(value);
}

SizeGuard SizeGuard::Substitute(const std::map<std::string, SymExpr>& replacements) const {
  SizeGuard guard = *this;
  for (auto& [name, size] : guard.sizes_) {
    if (!size.expr.empty()) size.expr = size.expr.Substitute(replacements);
  }
  return guard;
}

std::string SizeGuard::ToString() const {
  std::string text = Readable(text_);
  if (text.size() > kMaxShownBytes) text = absl::StrCat(text.substr(0, kMaxShownBytes), "...");
  return text;
}

std::string SizeGuard::SizesToString(const SymBindings& bindings) const {
  return absl::StrJoin(sizes_, ", ", [&](std::string* out, const auto& entry) {
    const auto size = SizeAt(entry.second, bindings);
    absl::StrAppend(out, Readable(entry.first), " is ",
                    size.ok() ? absl::StrCat(*size) : "not known");
  });
}

}  // namespace autosp
