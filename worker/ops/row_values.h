// Elements of rows as fp32, in a form that the compiler makes vectors of.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <bit>
#include <cstdint>

#include "worker/ops/vector_clones.h"

namespace autosp {

AUTOSP_INLINE float LoadValue(float value) { return value; }
AUTOSP_INLINE float LoadValue(c10::Half value) { return static_cast<float>(value); }
AUTOSP_INLINE float LoadValue(c10::BFloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.x) << 16);
}

AUTOSP_INLINE void StoreValue(float value, float* to) { *to = value; }
AUTOSP_INLINE void StoreValue(float value, c10::Half* to) { *to = value; }
// Rounds to nearest even as c10 does, without its branch for NaN: a NaN keeps its sign and upper
// bits.
AUTOSP_INLINE void StoreValue(float value, c10::BFloat16* to) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  to->x = static_cast<uint16_t>(value == value ? rounded : 0x7FC0U);
}

}  // namespace autosp
