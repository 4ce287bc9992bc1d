#include "worker/collectives/reduce.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

namespace autosp {
namespace {

// Works through the buffers in tiles that stay in the first-level cache; `output` is written only
// after a tile of all sources has been read, hence it may be one of them.
constexpr int64_t kTile = 2048;

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

inline float Widen(Bf16 value) { return std::bit_cast<float>(uint32_t{value.bits} << 16); }

inline float Widen(F16 value) {
  const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16;
  const uint32_t exponent = (value.bits >> 10) & 0x1f;
  const uint32_t mantissa = value.bits & 0x3ff;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t wide_exponent = exponent == 0x1f ? 0xff : exponent + 112;
  return std::bit_cast<float>(sign | (wide_exponent << 23) | (mantissa << 13));
}

template <typename T>
inline T Widen(T value) {
  return value;
}

inline void Narrow(float value, Bf16& out) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
  out.bits = is_nan ? uint16_t{0x7fc0} : static_cast<uint16_t>(rounded);
}

inline void Narrow(float value, F16& out) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const float magnitude = std::bit_cast<float>(bits & 0x7fffffffu);
  if (!(magnitude < 65520.0f)) {  // rounds to infinity, is infinite, or is NaN
    out.bits = sign | (std::isnan(value) ? 0x7e00 : 0x7c00);
    return;
  }
  if (magnitude < 0x1p-14f) {  // subnormal: adding 0.5 leaves the rounded multiple of 2^-24 below
    const uint32_t shifted = std::bit_cast<uint32_t>(magnitude + 0.5f);
    out.bits = sign | static_cast<uint16_t>(shifted - 0x3f000000u);
    return;
  }
  const uint32_t absolute = bits & 0x7fffffffu;
  const uint32_t rounded = absolute + 0xfffu + ((absolute >> 13) & 1);
  out.bits = sign | static_cast<uint16_t>((rounded >> 13) - (112u << 10));
}

template <typename T>
inline void Narrow(T value, T& out) {
  out = value;
}

template <typename T>
T Load(const std::byte* from, int64_t index) {
  T value;
  std::memcpy(&value, from + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

template <typename Wide, ReduceOp op>
inline Wide Combine(Wide a, Wide b) {
  if constexpr (op == ReduceOp::kSum) {
    if constexpr (std::is_integral_v<Wide>) {
      // Wraps around instead of undefined behaviour.
      using Unsigned = std::make_unsigned_t<Wide>;
      return static_cast<Wide>(static_cast<Unsigned>(a) + static_cast<Unsigned>(b));
    } else {
      return a + b;
    }
  } else {
    return b > a || b != b ? b : a;  // b != b: NaN wins; a NaN in `a` loses no comparison
  }
}

template <typename T, ReduceOp op>
void ReduceAs(absl::Span<const std::byte* const> sources, std::byte* output, int64_t num_elements) {
  using Wide = decltype(Widen(T{}));
  Wide accumulator[kTile];
  for (int64_t begin = 0; begin < num_elements; begin += kTile) {
    const int64_t count = std::min(kTile, num_elements - begin);
    for (size_t s = 0; s < sources.size(); ++s) {
      const std::byte* source = sources[s] + begin * static_cast<int64_t>(sizeof(T));
      if (s == 0) {
        for (int64_t i = 0; i < count; ++i) accumulator[i] = Widen(Load<T>(source, i));
      } else {
        for (int64_t i = 0; i < count; ++i) {
          accumulator[i] = Combine<Wide, op>(accumulator[i], Widen(Load<T>(source, i)));
        }
      }
    }
    std::byte* out = output + begin * static_cast<int64_t>(sizeof(T));
    for (int64_t i = 0; i < count; ++i) {
      T value;
      Narrow(accumulator[i], value);
      std::memcpy(out + i * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
    }
  }
}

template <typename T>
void ReduceWith(ReduceOp op, absl::Span<const std::byte* const> sources, std::byte* output,
                int64_t num_elements) {
  if (op == ReduceOp::kSum) {
    ReduceAs<T, ReduceOp::kSum>(sources, output, num_elements);
  } else {
    ReduceAs<T, ReduceOp::kMax>(sources, output, num_elements);
  }
}

}  // namespace

void Reduce(DType dtype, ReduceOp op, absl::Span<const std::byte* const> sources, std::byte* output,
            int64_t num_elements) {
  switch (dtype) {
    case DType::kBool:  // "or" is the maximum of 0 and 1
      return ReduceWith<uint8_t>(ReduceOp::kMax, sources, output, num_elements);
    case DType::kU8:
      return ReduceWith<uint8_t>(op, sources, output, num_elements);
    case DType::kI8:
      return ReduceWith<int8_t>(op, sources, output, num_elements);
    case DType::kI16:
      return ReduceWith<int16_t>(op, sources, output, num_elements);
    case DType::kI32:
      return ReduceWith<int32_t>(op, sources, output, num_elements);
    case DType::kI64:
      return ReduceWith<int64_t>(op, sources, output, num_elements);
    case DType::kF16:
      return ReduceWith<F16>(op, sources, output, num_elements);
    case DType::kBF16:
      return ReduceWith<Bf16>(op, sources, output, num_elements);
    case DType::kF32:
      return ReduceWith<float>(op, sources, output, num_elements);
    case DType::kF64:
      return ReduceWith<double>(op, sources, output, num_elements);
  }
}

}  // namespace autosp
