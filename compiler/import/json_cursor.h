// Walks a JSON document, remembering the path for messages and the first error.
//
// Readers are written without a check at each step: after a mistake every step gives an empty value
// and the first error stands. Ask status() at the end.
//
//   JsonDocument document = ...;
//   JsonCursor root = document.root();
//   node.target = root.At("target").String();
//   RETURN_IF_ERROR(document.status());
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace autosp {

class JsonCursor {
 public:
  using Json = nlohmann::json;

  // The member `key` of an object. A missing one is an error; see Has.
  JsonCursor At(std::string_view key) const;
  // True if the object has `key` with a value other than null.
  bool Has(std::string_view key) const;
  bool IsNull() const { return value_->is_null(); }

  std::string String() const;      // at most kMaxNameBytes
  std::string LongString() const;  // bounded by the document alone
  int64_t Int() const;
  bool Bool() const;
  double Double() const;  // also "Infinity", "-Infinity" and "NaN", as torch writes them

  // Calls `visit(JsonCursor)` for each element of an array of at most kMaxListLength.
  template <typename Visit>
  void ForEach(Visit visit) const {
    if (!CheckArray()) return;
    size_t index = 0;
    for (const Json& element : *value_) visit(Child(element, "[" + std::to_string(index++) + "]"));
  }
  // Calls `visit(const std::string& key, JsonCursor)` for each member of an object.
  template <typename Visit>
  void ForEachMember(Visit visit) const {
    if (!CheckObject()) return;
    for (const auto& [key, element] : value_->items()) visit(key, Child(element, "." + key));
  }
  // The only member of a tagged union: {"as_int": 3}.
  template <typename Visit>
  void Union(Visit visit) const {
    if (!CheckObject()) return;
    if (value_->size() != 1) return Fail("a union has one member");
    visit(value_->begin().key(), Child(*value_->begin(), "." + value_->begin().key()));
  }

  // Records an error at this place, unless there is one already.
  void Fail(std::string_view rule) const;

 private:
  friend class JsonDocument;
  JsonCursor(const Json* value, std::string path, absl::Status* status)
      : value_(value), path_(std::move(path)), status_(status) {}

  JsonCursor Child(const Json& value, const std::string& step) const {
    return JsonCursor(&value, path_ + step, status_);
  }
  bool CheckArray() const;
  bool CheckObject() const;

  const Json* value_;
  std::string path_;
  absl::Status* status_;
};

class JsonDocument {
 public:
  // `name` stands in front of paths in messages. Refuses text that nests deeper than kMaxJsonDepth.
  static absl::StatusOr<JsonDocument> Parse(std::string_view text, std::string name);

  JsonCursor root() { return JsonCursor(json_.get(), name_, status_.get()); }
  const absl::Status& status() const { return *status_; }

 private:
  JsonDocument() = default;

  std::string name_;
  std::unique_ptr<nlohmann::json> json_;
  std::unique_ptr<absl::Status> status_;  // on the heap: cursors keep its address
};

}  // namespace autosp
