#include "compiler/ir/argument_text.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

template <typename... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};
template <typename... Visitors>
Overloaded(Visitors...) -> Overloaded<Visitors...>;  // clang 16 does not deduce it

template <typename List, typename PrintElement>
void PrintList(const List& list, std::string_view kind, std::string* out, PrintElement print) {
  // A kind is spelt out only where the elements do not show it.
  if (list.empty()) out->append(kind);
  *out += '[';
  bool is_first = true;
  for (const auto& element : list) {
    if (!is_first) *out += ", ";
    is_first = false;
    print(element);
  }
  *out += ']';
}

std::string_view BoolText(bool value) { return value ? "true" : "false"; }

// The list that holds elements of the kind of `first`.
absl::StatusOr<Argument> EmptyListFor(TextCursor& cursor, const Argument& first) {
  if (IsNone(first) || std::holds_alternative<ValueId>(first)) return Argument(ValueList());
  if (std::holds_alternative<SymInt>(first)) return Argument(IntList());
  if (std::holds_alternative<double>(first)) return Argument(FloatList());
  if (std::holds_alternative<bool>(first)) return Argument(BoolList());
  return cursor.Error("a list holds values, integers, floats or booleans");
}

absl::StatusOr<Argument> AppendAny(TextCursor& cursor, Argument element, Argument list) {
  if (auto* values = std::get_if<ValueList>(&list)) {
    if (IsNone(element)) element = ValueId();
    if (auto* id = std::get_if<ValueId>(&element)) {
      values->push_back(*id);
      return list;
    }
  } else if (auto* ints = std::get_if<IntList>(&list)) {
    if (auto* value = std::get_if<SymInt>(&element)) {
      ints->push_back(std::move(*value));
      return list;
    }
  } else if (auto* floats = std::get_if<FloatList>(&list)) {
    if (auto* value = std::get_if<double>(&element)) {
      floats->push_back(*value);
      return list;
    }
  } else if (auto* bools = std::get_if<BoolList>(&list)) {
    if (auto* value = std::get_if<bool>(&element)) {
      bools->push_back(*value);
      return list;
    }
  }
  return cursor.Error("the elements of a list have one type");
}

absl::StatusOr<Argument> ParseList(TextCursor& cursor, const ResolveValue& resolve) {
  RETURN_IF_ERROR(cursor.Expect('['));
  if (cursor.Consume(']')) return Argument(IntList());
  Argument list;
  do {
    if (cursor.Peek() == '[') return cursor.Error("lists of lists are not arguments");
    ASSIGN_OR_RETURN(Argument element, ParseArgument(cursor, resolve));
    if (IsNone(list)) {
      ASSIGN_OR_RETURN(list, EmptyListFor(cursor, element));
    }
    ASSIGN_OR_RETURN(list, AppendAny(cursor, std::move(element), std::move(list)));
  } while (cursor.Consume(','));
  RETURN_IF_ERROR(cursor.Expect(']'));
  return list;
}

template <typename Expr>
absl::StatusOr<Expr> ParseBraced(TextCursor& cursor) {
  const size_t start = cursor.position();
  ASSIGN_OR_RETURN(const std::string_view text, cursor.Until('}'));
  absl::StatusOr<Expr> expr = Expr::Parse(text);
  if (!expr.ok()) return cursor.ErrorAt(start, std::string(expr.status().message()));
  return expr;
}

absl::StatusOr<Argument> ParseNumber(TextCursor& cursor) {
  using Number = std::variant<int64_t, double>;
  ASSIGN_OR_RETURN(const Number number, cursor.Number());
  const bool is_made_of_sizes = cursor.Consume('{');
  if (const auto* integer = std::get_if<int64_t>(&number)) {
    SymExpr expr;
    if (is_made_of_sizes) {
      ASSIGN_OR_RETURN(expr, ParseBraced<SymExpr>(cursor));
    }
    return Argument(SymInt(*integer, std::move(expr)));
  }
  const double value = std::get<double>(number);
  if (!is_made_of_sizes) return Argument(value);
  ASSIGN_OR_RETURN(NumberExpr expr, ParseBraced<NumberExpr>(cursor));
  return Argument(SymFloat{value, std::move(expr)});
}

absl::StatusOr<Argument> ParseWord(TextCursor& cursor) {
  const size_t start = cursor.position();
  ASSIGN_OR_RETURN(const std::string_view word, cursor.Identifier());
  if (word == "none") return Argument(None());
  if (word == "true") return Argument(true);
  if (word == "false") return Argument(false);
  if (const std::optional<DType> dtype = DTypeFromName(word)) return Argument(*dtype);
  if (cursor.ConsumeText("[]")) {
    if (word == "values") return Argument(ValueList());
    if (word == "floats") return Argument(FloatList());
    if (word == "bools") return Argument(BoolList());
  }
  return cursor.ErrorAt(start, absl::StrCat("'", Absl(word), "' is not an argument"));
}

}  // namespace

void PrintSymInt(const SymInt& value, std::string* out) {
  absl::StrAppend(out, value.value);
  if (!value.expr.empty()) absl::StrAppend(out, "{", value.expr.ToString(), "}");
}

absl::StatusOr<SymInt> ParseSymInt(TextCursor& cursor) {
  ASSIGN_OR_RETURN(const int64_t value, cursor.Integer());
  if (!cursor.Consume('{')) return SymInt(value);
  ASSIGN_OR_RETURN(SymExpr expr, ParseBraced<SymExpr>(cursor));
  return SymInt(value, std::move(expr));
}

void PrintArgument(const Argument& argument, const std::function<std::string(ValueId)>& name,
                   std::string* out) {
  const auto print_value = [&](ValueId id) {
    absl::StrAppend(out, id.valid() ? absl::StrCat("%", name(id)) : "none");
  };
  const auto print_float = [&](double value) { *out += FormatDouble(value); };
  std::visit(Overloaded{
                 [&](None) { *out += "none"; },
                 [&](ValueId id) { print_value(id); },
                 [&](const ValueList& list) { PrintList(list, "values", out, print_value); },
                 [&](const SymInt& value) { PrintSymInt(value, out); },
                 [&](const IntList& list) {
                   PrintList(list, "", out, [&](const SymInt& value) { PrintSymInt(value, out); });
                 },
                 print_float,
                 [&](const FloatList& list) { PrintList(list, "floats", out, print_float); },
                 [&](bool value) { *out += BoolText(value); },
                 [&](const BoolList& list) {
                   PrintList(list, "bools", out, [&](bool value) { *out += BoolText(value); });
                 },
                 [&](const std::string& text) { *out += FormatQuoted(text); },
                 [&](DType dtype) { *out += DTypeName(dtype); },
                 [&](const EnumName& value) { absl::StrAppend(out, "!", value.name); },
                 [&](const SymFloat& value) {
                   absl::StrAppend(out, FormatDouble(value.value), "{", value.expr.ToString(), "}");
                 },
             },
             argument);
}

absl::StatusOr<Argument> ParseArgument(TextCursor& cursor, const ResolveValue& resolve) {
  const char c = cursor.Peek();
  if (c == '%') {
    const size_t start = cursor.position();
    ASSIGN_OR_RETURN(const std::string_view name, cursor.ValueName());
    const absl::StatusOr<ValueId> id = resolve(name);
    if (!id.ok()) return cursor.ErrorAt(start, std::string(id.status().message()));
    return Argument(*id);
  }
  if (c == '[') return ParseList(cursor, resolve);
  if (c == '"') {
    ASSIGN_OR_RETURN(std::string text, cursor.QuotedString());
    return Argument(std::move(text));
  }
  if (c == '!') {
    cursor.Consume('!');
    ASSIGN_OR_RETURN(const std::string_view name, cursor.Identifier());
    return Argument(EnumName{std::string(name)});
  }
  const std::string_view word = cursor.PeekIdentifier();
  if (word.empty() || word == "inf" || word == "nan") return ParseNumber(cursor);
  return ParseWord(cursor);
}

}  // namespace autosp
