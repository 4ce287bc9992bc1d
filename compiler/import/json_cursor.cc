#include "compiler/import/json_cursor.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "compiler/import/import_limits.h"
#include "compiler/ir/text_cursor.h"

namespace autosp {
namespace {

using Json = nlohmann::json;

const Json& Nothing() {
  static const Json* const nothing = new Json();
  return *nothing;
}

// Counts brackets outside strings, before the parser builds anything.
int NestingDepth(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

void JsonCursor::Fail(std::string_view rule) const {
  if (status_->ok()) *status_ = InvalidArgument(path_, ": ", Absl(rule));
}

bool JsonCursor::CheckArray() const {
  if (!value_->is_array()) {
    Fail("a list is expected");
  } else if (value_->size() > kMaxListLength) {
    Fail(absl::StrCat("the list has ", value_->size(), " elements, at most ", kMaxListLength,
                      " are read"));
  } else {
    return status_->ok();
  }
  return false;
}

bool JsonCursor::CheckObject() const {
  if (!value_->is_object()) Fail("an object is expected");
  return value_->is_object() && status_->ok();
}

JsonCursor JsonCursor::At(std::string_view key) const {
  const std::string name(key);
  if (CheckObject()) {
    const auto member = value_->find(name);
    if (member != value_->end()) return Child(*member, "." + name);
    Fail(absl::StrCat("member ", name, " is missing"));
  }
  return Child(Nothing(), "." + name);
}

bool JsonCursor::Has(std::string_view key) const {
  if (!value_->is_object()) return false;
  const auto member = value_->find(std::string(key));
  return member != value_->end() && !member->is_null();
}

std::string JsonCursor::LongString() const {
  if (value_->is_string()) return value_->get<std::string>();
  Fail("a string is expected");
  return "";
}

std::string JsonCursor::String() const {
  std::string text = LongString();
  if (text.size() <= kMaxNameBytes) return text;
  Fail(
      absl::StrCat("the string has ", text.size(), " bytes, at most ", kMaxNameBytes, " are read"));
  return "";
}

int64_t JsonCursor::Int() const {
  // Unsigned holds what does not fit; a bool is no number here.
  if (value_->is_number_unsigned() &&
      value_->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    Fail("the integer does not fit 64 bits");
    return 0;
  }
  if (value_->is_number_integer()) return value_->get<int64_t>();
  Fail("an integer is expected");
  return 0;
}

bool JsonCursor::Bool() const {
  if (value_->is_boolean()) return value_->get<bool>();
  Fail("true or false is expected");
  return false;
}

double JsonCursor::Double() const {
  if (value_->is_number()) return value_->get<double>();
  const std::string text = value_->is_string() ? value_->get<std::string>() : "";
  if (text == "Infinity") return std::numeric_limits<double>::infinity();
  if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
  Fail("a number is expected");
  return 0;
}

absl::StatusOr<JsonDocument> JsonDocument::Parse(std::string_view text, std::string name) {
  if (const int depth = NestingDepth(text); depth > kMaxJsonDepth) {
    return ResourceExhausted(name, ": lists and objects nest ", depth, " deep, at most ",
                             kMaxJsonDepth, " are read");
  }
  JsonDocument document;
  document.json_ = std::make_unique<Json>(Json::parse(text, nullptr, /*allow_exceptions=*/false));
  if (document.json_->is_discarded()) {
    return DataLoss(name, " is not JSON, so the archive is damaged");
  }
  document.name_ = std::move(name);
  document.status_ = std::make_unique<absl::Status>();
  return document;
}

}  // namespace autosp
