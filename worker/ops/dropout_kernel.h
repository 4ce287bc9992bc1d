// Random numbers, and dropout by them, of elements that follow each other in the whole tensor.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>

#include "worker/ops/philox.h"

namespace autosp {

// Element i of the whole tensor has the random word i % 4 of counter
// {i / 4 in two words, step, seed_high}.
struct RandomStream {
  PhiloxKey key = {};
  uint32_t step = 0;
  uint32_t seed_high = 0;
};

struct DropoutMask : RandomStream {
  uint32_t threshold = 0;  // an element is kept where its random word is not below it
  float scale = 1;         // of kept elements
};

// A number between 0 and 1 of a random word: one of 2^23, at equal distances, and neither 0 nor 1,
// so that its logarithm is a number, and that of the rest to 1.
inline float UniformOf(uint32_t word) {
  return (static_cast<float>(static_cast<int32_t>(word >> 9)) + 0.5F) * 0x1p-23F;
}

// to[i] := a number between 0 and 1, i < count. Element i has the index first + i in the whole.
void Uniform(float* to, int64_t count, uint64_t first, const RandomStream& stream);

// to[i] := from[i] * scale or 0, i < count. Element i has the index first + i in the whole tensor.
void Dropout(const float* from, float* to, int64_t count, uint64_t first, const DropoutMask& mask);
void Dropout(const c10::BFloat16* from, c10::BFloat16* to, int64_t count, uint64_t first,
             const DropoutMask& mask);
void Dropout(const c10::Half* from, c10::Half* to, int64_t count, uint64_t first,
             const DropoutMask& mask);

}  // namespace autosp
