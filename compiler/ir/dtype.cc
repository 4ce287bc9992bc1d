#include "compiler/ir/dtype.h"

#include <algorithm>
#include <array>

namespace autosp {
namespace {

struct Row {
  DType dtype;
  std::string_view name;
  int64_t size_bytes;
};

constexpr std::array kRows = {
    Row{DType::kBool, "bool", 1}, Row{DType::kU8, "u8", 1},     Row{DType::kI8, "i8", 1},
    Row{DType::kI16, "i16", 2},   Row{DType::kI32, "i32", 4},   Row{DType::kI64, "i64", 8},
    Row{DType::kF16, "f16", 2},   Row{DType::kBF16, "bf16", 2}, Row{DType::kF32, "f32", 4},
    Row{DType::kF64, "f64", 8},
};

}  // namespace

int64_t SizeOf(DType dtype) { return kRows[static_cast<size_t>(dtype)].size_bytes; }

std::string_view DTypeName(DType dtype) { return kRows[static_cast<size_t>(dtype)].name; }

std::optional<DType> DTypeFromName(std::string_view name) {
  const auto* row = std::ranges::find(kRows, name, &Row::name);
  if (row == kRows.end()) return std::nullopt;
  return row->dtype;
}

DType PromoteTypes(DType a, DType b) {
  if (a == b) return a;
  const DType low = std::min(a, b);
  const DType high = std::max(a, b);
  // Two half types of equal size share only f32; u8 and i8 share only i16.
  if (low == DType::kF16 && high == DType::kBF16) return DType::kF32;
  if (low == DType::kU8 && high == DType::kI8) return DType::kI16;
  return high;
}

}  // namespace autosp
