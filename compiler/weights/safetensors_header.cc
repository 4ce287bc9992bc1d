#include "compiler/weights/safetensors_header.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

using Json = nlohmann::json;

struct DTypeRow {
  DType dtype;
  absl::string_view name;
};
constexpr std::array kDTypeRows = {
    DTypeRow{DType::kBool, "BOOL"}, DTypeRow{DType::kU8, "U8"},     DTypeRow{DType::kI8, "I8"},
    DTypeRow{DType::kI16, "I16"},   DTypeRow{DType::kI32, "I32"},   DTypeRow{DType::kI64, "I64"},
    DTypeRow{DType::kF16, "F16"},   DTypeRow{DType::kBF16, "BF16"}, DTypeRow{DType::kF32, "F32"},
    DTypeRow{DType::kF64, "F64"},
};

std::optional<DType> DTypeOf(absl::string_view name) {
  for (const DTypeRow& row : kDTypeRows) {
    if (row.name == name) return row.dtype;
  }
  return std::nullopt;
}

// Takes the parser's events. Depth 1 is the table of tensors, depth 2 one tensor or the metadata,
// depth 3 a list of numbers. Every method returns false at the first thing that is not as it must
// be.
class HeaderHandler final : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_float(double, const std::string&) override { return Unexpected("a fraction"); }
  bool binary(binary_t&) override { return Unexpected("binary data"); }

  bool number_integer(int64_t value) override {
    if (list_ == nullptr) return Unexpected("a number");
    if (value < 0) return Fail("a negative number");
    list_->push_back(value);
    return list_->size() <= kMaxTensorDims || Fail("too many dimensions");
  }

  bool number_unsigned(uint64_t value) override {
    if (value > static_cast<uint64_t>(INT64_MAX)) return Fail("a number past 2^63");
    return number_integer(static_cast<int64_t>(value));
  }

  bool string(std::string& value) override {
    if (depth_ != 2 || list_ != nullptr) return Unexpected("text");
    if (is_metadata_) {
      header_.metadata[key_] = std::move(value);
      return true;
    }
    if (key_ != "dtype") return Unexpected("text");
    entry_.dtype_name = std::move(value);
    return true;
  }

  bool start_object(size_t) override {
    if (++depth_ > 2 || list_ != nullptr) return Unexpected("a nested table");
    if (depth_ == 2) {
      is_metadata_ = entry_.name == kSafetensorsMetadataKey;
      seen_.clear();
      offsets_.clear();
    }
    return true;
  }

  bool key(std::string& value) override {
    if (depth_ == 1) {
      if (!names_.insert(value).second) return Fail("named twice: " + value);
      entry_ = SafetensorsEntry{.name = value};
      return true;
    }
    key_ = value;
    if (is_metadata_) return true;
    const bool is_known = value == "dtype" || value == "shape" || value == "data_offsets";
    if (!is_known) return Fail("an unknown key: " + value);
    return seen_.insert(value).second || Fail("a key twice: " + value);
  }

  bool end_object() override {
    const bool is_tensor = depth_ == 2 && !is_metadata_;
    const bool is_whole = seen_.size() == 3 && offsets_.size() == 2;
    if (is_tensor && !is_whole) return Fail("no dtype, shape or data_offsets");
    is_metadata_ = false;
    --depth_;
    if (!is_tensor) return true;
    entry_.begin = offsets_[0];
    entry_.end = offsets_[1];
    header_.entries.push_back(std::move(entry_));
    entry_ = {};
    return true;
  }

  bool start_array(size_t) override {
    if (depth_ != 2 || is_metadata_ || list_ != nullptr || key_ == "dtype") {
      return Unexpected("a list");
    }
    list_ = key_ == "shape" ? &entry_.shape : &offsets_;
    return true;
  }

  bool end_array() override {
    list_ = nullptr;
    return true;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Fail(absl::StrCat("no JSON at byte ", position));
  }

  SafetensorsHeader TakeHeader() { return std::move(header_); }
  const std::string& error() const { return error_; }

 private:
  bool Unexpected(absl::string_view what) {
    return Fail(absl::StrCat(what, " where it may not be"));
  }

  bool Fail(const std::string& what) {
    const std::string at = depth_ >= 2 && !entry_.name.empty() ? entry_.name : "header";
    error_ = absl::StrCat(at, ": ", what);
    return false;
  }

  SafetensorsHeader header_;
  SafetensorsEntry entry_;
  std::vector<int64_t> offsets_;
  std::vector<int64_t>* list_ = nullptr;
  std::set<std::string> names_;
  std::set<std::string> seen_;
  std::string key_;
  std::string error_;
  int depth_ = 0;
  bool is_metadata_ = false;
};

// Tensors lie one after another from 0 to the end of the file, each as long as its type and shape
// say.
absl::Status CheckPlaces(const std::vector<SafetensorsEntry>& entries, int64_t data_bytes) {
  int64_t next = 0;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.begin != next || entry.end < entry.begin) {
      return InvalidArgument(entry.name, ": data_offsets [", entry.begin, ", ", entry.end,
                             "] do not follow the tensor before it, which ends at ", next);
    }
    if (entry.end > data_bytes) {
      return InvalidArgument(entry.name, ": ends at byte ", entry.end, " of ", data_bytes,
                             "; the file is truncated");
    }
    next = entry.end;
    if (!entry.dtype.has_value()) continue;
    const std::optional<int64_t> bytes = TensorBytes(*entry.dtype, entry.shape);
    if (bytes != entry.num_bytes()) {
      return InvalidArgument(entry.name, ": has ", entry.num_bytes(), " bytes, but is ",
                             entry.dtype_name, " [", absl::StrJoin(entry.shape, ", "), "]");
    }
  }
  if (next == data_bytes) return absl::OkStatus();
  return InvalidArgument("header: ", data_bytes - next, " bytes after the last tensor");
}

}  // namespace

absl::string_view SafetensorsDTypeName(DType dtype) {
  return std::ranges::find(kDTypeRows, dtype, &DTypeRow::dtype)->name;
}

std::optional<int64_t> TensorBytes(DType dtype, const std::vector<int64_t>& shape) {
  int64_t bytes = SizeOf(dtype);
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  }
  return bytes;
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json,
                                                         int64_t data_bytes) {
  HeaderHandler handler;
  const bool is_table = !json.empty() && json[0] == '{';
  if (!is_table || !Json::sax_parse(json.begin(), json.end(), &handler)) {
    return InvalidArgument(is_table ? handler.error() : "header: not a JSON table");
  }
  SafetensorsHeader header = handler.TakeHeader();
  for (SafetensorsEntry& entry : header.entries) entry.dtype = DTypeOf(entry.dtype_name);
  std::ranges::stable_sort(
      header.entries, {}, [](const SafetensorsEntry& e) { return std::make_pair(e.begin, e.end); });
  RETURN_IF_ERROR(CheckPlaces(header.entries, data_bytes));
  return header;
}

std::string FormatSafetensorsHeader(const SafetensorsHeader& header) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!header.metadata.empty()) json[std::string(kSafetensorsMetadataKey)] = header.metadata;
  for (const SafetensorsEntry& entry : header.entries) {
    json[entry.name] = {{"dtype", entry.dtype_name},
                        {"shape", entry.shape},
                        {"data_offsets", {entry.begin, entry.end}}};
  }
  std::string text = json.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace autosp
