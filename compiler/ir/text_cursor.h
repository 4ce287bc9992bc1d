// Reads the text forms of graphs and programs token by token.
//
// The cursor stands at the next significant character: spaces, line ends and comments (from '#' to
// the end of the line) are skipped before every token. Errors name line and column of the place
// where the token should have stood: `line 3, column 7: expected ')', found '%'`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autosp {

// For StrCat and friends: Debian's absl keeps a string_view of its own, which does not convert.
inline absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }

class TextCursor {
 public:
  // `text` must outlive the cursor.
  explicit TextCursor(std::string_view text) : text_(text) {}

  bool AtEnd();
  // The next significant character; '\0' at the end.
  char Peek();
  // True if the next significant text starts with `token` (no word boundary is asked for).
  bool PeekText(std::string_view token);
  // The next identifier without moving; empty if none stands there.
  std::string_view PeekIdentifier();

  // Steps over the token if it stands here.
  bool Consume(char c);
  bool ConsumeText(std::string_view token);
  // As ConsumeText, but the whole next identifier must equal `word`.
  bool ConsumeWord(std::string_view word);

  absl::Status Expect(char c);
  absl::Status ExpectText(std::string_view token);
  absl::Status ExpectWord(std::string_view word);

  // A letter or '_', then letters, digits, '_' and '.'. The result points into the text.
  absl::StatusOr<std::string_view> Identifier();
  // '%' and a name of letters, digits, '_' and '.'; the result is without the '%'.
  absl::StatusOr<std::string_view> ValueName();
  absl::StatusOr<int64_t> Integer();
  // An integer, or a double if it has a point, an exponent, or is inf, -inf or nan.
  absl::StatusOr<std::variant<int64_t, double>> Number();
  absl::StatusOr<std::string> QuotedString();
  // The raw text before `end`, which is stepped over; both stand on one line.
  absl::StatusOr<std::string_view> Until(char end);
  // The raw text of an operand, which ends where a bracket closes that was open before it, or at
  // the comma before the next.
  std::string_view Operand();

  // An InvalidArgument error at the next significant character.
  absl::Status Error(std::string_view message);

  // Where the next token starts: to go back to, and for errors about it once it has been read.
  size_t position() {
    SkipSpace();
    return position_;
  }
  void Rewind(size_t position) { position_ = position; }
  absl::Status ErrorAt(size_t position, std::string_view message) const;

 private:
  void SkipSpace();
  std::string Found();  // "'x'", "a word" or "end of text", for messages

  std::string_view text_;
  size_t position_ = 0;
};

// What the cursor reads back. The shortest digits that give the same double, always with a point,
// an exponent, or as inf or nan, so that it does not read as an integer.
std::string FormatDouble(double value);
// In quotes, with \" \\ \n \t and \xNN for what is not printable ASCII.
std::string FormatQuoted(std::string_view text);

}  // namespace autosp
