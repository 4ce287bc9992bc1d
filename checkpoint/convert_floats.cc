#include "checkpoint/convert_floats.h"

#include <bit>
#include <cstdint>
#include <cstring>

#include "common/check.h"

namespace autosp {
namespace {

struct BFloat16 {
  uint16_t bits;
};

constexpr int kDroppedBits = 16;
constexpr uint16_t kBFloat16NaN = 0x7fc0;

float ToFloat(BFloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << kDroppedBits);
}
template <typename T>
float ToFloat(T value) {
  return static_cast<float>(value);
}

template <typename T>
T FromFloat(float value) {
  return static_cast<T>(value);
}
template <>
BFloat16 FromFloat<BFloat16>(float value) {
  if (value != value) return {kBFloat16NaN};  // Rounding could make it infinite.
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t is_odd = bits >> kDroppedBits & 1;
  return {static_cast<uint16_t>((bits + 0x7fff + is_odd) >> kDroppedBits)};
}

template <typename From, typename To>
void Convert(absl::Span<const std::byte> in, absl::Span<std::byte> out) {
  const size_t count = in.size() / sizeof(From);
  for (size_t i = 0; i < count; ++i) {
    From from;
    std::memcpy(&from, in.data() + i * sizeof(From), sizeof(From));
    const To to = FromFloat<To>(ToFloat(from));
    std::memcpy(out.data() + i * sizeof(To), &to, sizeof(To));
  }
}

template <typename From>
void ConvertFrom(absl::Span<const std::byte> in, DType to, absl::Span<std::byte> out) {
  switch (to) {
    case DType::kF16:
      return Convert<From, _Float16>(in, out);
    case DType::kBF16:
      return Convert<From, BFloat16>(in, out);
    case DType::kF32:
      return Convert<From, float>(in, out);
    case DType::kF64:
      return Convert<From, double>(in, out);
    default:
      AUTOSP_CHECK(false, "not a floating type");
  }
}

}  // namespace

void ConvertFloats(DType from, absl::Span<const std::byte> in, DType to,
                   absl::Span<std::byte> out) {
  if (from == to) {
    std::memcpy(out.data(), in.data(), in.size());
    return;
  }
  switch (from) {
    case DType::kF16:
      return ConvertFrom<_Float16>(in, to, out);
    case DType::kBF16:
      return ConvertFrom<BFloat16>(in, to, out);
    case DType::kF32:
      return ConvertFrom<float>(in, to, out);
    case DType::kF64:
      return ConvertFrom<double>(in, to, out);
    default:
      AUTOSP_CHECK(false, "not a floating type");
  }
}

}  // namespace autosp
