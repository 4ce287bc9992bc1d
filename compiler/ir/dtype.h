// Element types of values, with the names used in every text form.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace autosp {

enum class DType : uint8_t { kBool, kU8, kI8, kI16, kI32, kI64, kF16, kBF16, kF32, kF64 };

int64_t SizeOf(DType dtype);  // bytes of one element
std::string_view DTypeName(DType dtype);  // "bf16", "f32", "i64", "bool", ...
std::optional<DType> DTypeFromName(std::string_view name);

constexpr bool IsFloating(DType dtype) { return dtype >= DType::kF16; }
constexpr bool IsHalf(DType dtype) { return dtype == DType::kF16 || dtype == DType::kBF16; }

// The result type of an arithmetic op on tensors of these types (torch type promotion between
// dimensioned tensors of the same kind of rank: the larger category, then the larger type).
DType PromoteTypes(DType a, DType b);

}  // namespace autosp
