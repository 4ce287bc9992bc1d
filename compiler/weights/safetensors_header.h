// The header of a safetensors file: JSON {name: {dtype, shape, data_offsets}}, after its length as
// a little endian u64. The tensors' bytes follow, without holes.
//
// Files come from anywhere, so that nothing in a header is trusted: sizes are checked for overflow,
// places for overlap and against the size of the file, and the parser builds no tree that a small
// header could blow up.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "compiler/ir/dtype.h"

namespace autosp {

// The limit of the reference implementation.
inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;
inline constexpr int64_t kMaxTensorDims = 64;

// What stands among the names of tensors and is none.
inline constexpr absl::string_view kSafetensorsMetadataKey = "__metadata__";

struct SafetensorsEntry {
  std::string name;
  std::string dtype_name = "";      // as in the file: "F32", "BF16", "F8_E4M3", ...
  std::optional<DType> dtype = {};  // empty: a type that programs do not have
  std::vector<int64_t> shape = {};
  int64_t begin = 0;  // of its bytes, counted from the end of the header
  int64_t end = 0;

  int64_t num_bytes() const { return end - begin; }
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // in the order of their bytes
  std::map<std::string, std::string> metadata;
};

// `data_bytes` is what the file has after the header. Errors name the tensor.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json,
                                                         int64_t data_bytes);

// The JSON text, padded with spaces to a multiple of 8 bytes.
std::string FormatSafetensorsHeader(const SafetensorsHeader& header);

// "F32", "BOOL", ...
absl::string_view SafetensorsDTypeName(DType dtype);

// Whether a weight of one type may stand for one of the other.
inline bool CanConvert(DType from, DType to) {
  return from == to || (IsFloating(from) && IsFloating(to));
}

// num_elements * size of the dtype; empty where that overflows or a size is negative.
std::optional<int64_t> TensorBytes(DType dtype, const std::vector<int64_t>& shape);

}  // namespace autosp
