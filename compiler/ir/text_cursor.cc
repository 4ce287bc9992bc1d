#include "compiler/ir/text_cursor.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace autosp {
namespace {

bool IsIdentifierStart(char c) { return absl::ascii_isalpha(c) || c == '_'; }
bool IsIdentifierPart(char c) { return absl::ascii_isalnum(c) || c == '_' || c == '.'; }

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The length of a number at the start of `text`: sign, digits, point, exponent; 0 if none.
size_t NumberLength(std::string_view text, bool* is_double) {
  size_t i = 0;
  if (i < text.size() && (text[i] == '-' || text[i] == '+')) ++i;
  const size_t first_digit = i;
  *is_double = false;
  for (; i < text.size(); ++i) {
    const char c = text[i];
    if (absl::ascii_isdigit(c)) continue;
    const bool is_exponent = (c == 'e' || c == 'E') && i > first_digit;
    const bool is_sign = (c == '-' || c == '+') && (text[i - 1] == 'e' || text[i - 1] == 'E');
    if (c != '.' && !is_exponent && !is_sign) break;
    *is_double = true;
  }
  return i == first_digit ? 0 : i;
}

}  // namespace

void TextCursor::SkipSpace() {
  while (position_ < text_.size()) {
    const char c = text_[position_];
    if (c == '#') {
      const size_t line_end = text_.find('\n', position_);
      position_ = line_end == std::string_view::npos ? text_.size() : line_end;
    } else if (absl::ascii_isspace(c)) {
      ++position_;
    } else {
      return;
    }
  }
}

bool TextCursor::AtEnd() {
  SkipSpace();
  return position_ == text_.size();
}

char TextCursor::Peek() { return AtEnd() ? '\0' : text_[position_]; }

bool TextCursor::PeekText(std::string_view token) {
  SkipSpace();
  return text_.substr(position_).starts_with(token);
}

std::string_view TextCursor::PeekIdentifier() {
  SkipSpace();
  size_t end = position_;
  if (end == text_.size() || !IsIdentifierStart(text_[end])) return {};
  while (end < text_.size() && IsIdentifierPart(text_[end])) ++end;
  return text_.substr(position_, end - position_);
}

bool TextCursor::Consume(char c) {
  if (c == '\0' || Peek() != c) return false;
  ++position_;
  return true;
}

bool TextCursor::ConsumeText(std::string_view token) {
  if (!PeekText(token)) return false;
  position_ += token.size();
  return true;
}

bool TextCursor::ConsumeWord(std::string_view word) {
  if (PeekIdentifier() != word) return false;
  position_ += word.size();
  return true;
}

absl::Status TextCursor::Expect(char c) {
  if (Consume(c)) return absl::OkStatus();
  return Error(absl::StrCat("expected '", std::string(1, c), "', found ", Found()));
}

absl::Status TextCursor::ExpectText(std::string_view token) {
  if (ConsumeText(token)) return absl::OkStatus();
  return Error(absl::StrCat("expected '", Absl(token), "', found ", Found()));
}

absl::Status TextCursor::ExpectWord(std::string_view word) {
  if (ConsumeWord(word)) return absl::OkStatus();
  return Error(absl::StrCat("expected '", Absl(word), "', found ", Found()));
}

absl::StatusOr<std::string_view> TextCursor::Identifier() {
  const std::string_view identifier = PeekIdentifier();
  if (identifier.empty()) return Error(absl::StrCat("expected a name, found ", Found()));
  position_ += identifier.size();
  return identifier;
}

absl::StatusOr<std::string_view> TextCursor::ValueName() {
  if (Peek() != '%') return Error(absl::StrCat("expected a value (%name), found ", Found()));
  size_t end = position_ + 1;
  while (end < text_.size() && IsIdentifierPart(text_[end])) ++end;
  if (end == position_ + 1) return Error("expected a name after '%'");
  const std::string_view name = text_.substr(position_ + 1, end - position_ - 1);
  position_ = end;
  return name;
}

absl::StatusOr<int64_t> TextCursor::Integer() {
  SkipSpace();
  bool is_double = false;
  const size_t length = NumberLength(text_.substr(position_), &is_double);
  if (length == 0 || is_double) return Error(absl::StrCat("expected an integer, found ", Found()));
  const std::string_view digits = text_.substr(position_, length);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), value);
  if (error != std::errc() || end != digits.end()) {
    return Error(absl::StrCat("integer ", Absl(digits), " does not fit 64 bits"));
  }
  position_ += length;
  return value;
}

absl::StatusOr<std::variant<int64_t, double>> TextCursor::Number() {
  using Result = std::variant<int64_t, double>;
  if (ConsumeWord("inf")) return Result(std::numeric_limits<double>::infinity());
  if (ConsumeWord("nan")) return Result(std::numeric_limits<double>::quiet_NaN());
  if (ConsumeText("-inf")) return Result(-std::numeric_limits<double>::infinity());
  bool is_double = false;
  const size_t length = NumberLength(text_.substr(position_), &is_double);
  if (length == 0) return Error(absl::StrCat("expected a number, found ", Found()));
  if (!is_double) {
    absl::StatusOr<int64_t> integer = Integer();
    if (!integer.ok()) return integer.status();
    return Result(*integer);
  }
  const std::string_view digits = text_.substr(position_, length);
  double value = 0;
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), value);
  if (error != std::errc() || end != digits.end()) {
    return Error(absl::StrCat("'", Absl(digits), "' is not a number of 64 bits"));
  }
  position_ += length;
  return Result(value);
}

absl::StatusOr<std::string> TextCursor::QuotedString() {
  if (Peek() != '"') return Error(absl::StrCat("expected a quoted string, found ", Found()));
  const size_t start = position_;
  std::string result;
  for (size_t i = start + 1; i < text_.size() && text_[i] != '\n'; ++i) {
    if (text_[i] == '"') {
      position_ = i + 1;
      return result;
    }
    if (text_[i] != '\\') {
      result += text_[i];
      continue;
    }
    const char escape = ++i < text_.size() ? text_[i] : '\0';
    if (escape == 'n' || escape == 't') {
      result += escape == 'n' ? '\n' : '\t';
    } else if (escape == '"' || escape == '\\') {
      result += escape;
    } else if (escape == 'x' && i + 2 < text_.size() && HexDigit(text_[i + 1]) >= 0 &&
               HexDigit(text_[i + 2]) >= 0) {
      result += static_cast<char>(HexDigit(text_[i + 1]) * 16 + HexDigit(text_[i + 2]));
      i += 2;
    } else {
      return ErrorAt(i, "unknown escape in a string, known are \\\" \\\\ \\n \\t \\xNN");
    }
  }
  return ErrorAt(start, "string does not end on its line");
}

absl::StatusOr<std::string_view> TextCursor::Until(char end) {
  const size_t stop = text_.find(end, position_);
  const std::string_view raw = text_.substr(position_, stop - position_);
  if (stop == std::string_view::npos || raw.find('\n') != std::string_view::npos) {
    return Error(absl::StrCat("expected '", std::string(1, end), "' on this line"));
  }
  position_ = stop + 1;
  return raw;
}

std::string_view TextCursor::Operand() {
  const size_t start = position();
  for (int open = 0; position_ < text_.size(); ++position_) {
    const char c = text_[position_];
    if (open == 0 && (c == ',' || c == ')')) break;
    open += c == '(' ? 1 : c == ')' ? -1 : 0;
  }
  return text_.substr(start, position_ - start);
}

std::string TextCursor::Found() {
  const char c = Peek();
  if (c == '\0') return "the end of the text";
  const std::string_view identifier = PeekIdentifier();
  if (!identifier.empty()) return absl::StrCat("'", Absl(identifier.substr(0, 60)), "'");
  return absl::ascii_isprint(c) ? absl::StrCat("'", std::string(1, c), "'") : "a binary character";
}

absl::Status TextCursor::Error(std::string_view message) {
  SkipSpace();
  return ErrorAt(position_, message);
}

absl::Status TextCursor::ErrorAt(size_t position, std::string_view message) const {
  const std::string_view before = text_.substr(0, position);
  size_t line = 1;
  for (char c : before) line += c == '\n';
  const size_t line_start = before.rfind('\n');
  const size_t column = line_start == std::string_view::npos ? position + 1 : position - line_start;
  return absl::InvalidArgumentError(
      absl::StrCat("line ", line, ", column ", column, ": ", Absl(message)));
}

std::string FormatDouble(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), value);
  std::string text(buffer, end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string FormatQuoted(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (c == '\n') {
      result += "\\n";
    } else if (c == '\t') {
      result += "\\t";
    } else if (byte < 0x20 || byte >= 0x7f) {
      result += "\\x";
      result += kHex[byte >> 4];
      result += kHex[byte & 15];
    } else {
      result += c;
    }
  }
  return result + '"';
}

}  // namespace autosp
