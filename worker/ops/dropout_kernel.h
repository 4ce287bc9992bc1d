// Dropout of elements that follow each other in the whole tensor.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>

#include "worker/ops/philox.h"

namespace autosp {

struct DropoutMask {
  PhiloxKey key = {};
  uint32_t step = 0;
  uint32_t seed_high = 0;
  uint32_t threshold = 0;  // an element is kept where its random word is not below it
  float scale = 1;         // of kept elements
};

// to[i] := from[i] * scale or 0, i < count. Element i has the index first + i in the whole tensor,
// and the random word (first + i) % 4 of counter {(first + i) / 4 in two words, step, seed_high}.
void Dropout(const float* from, float* to, int64_t count, uint64_t first, const DropoutMask& mask);
void Dropout(const c10::BFloat16* from, c10::BFloat16* to, int64_t count, uint64_t first,
             const DropoutMask& mask);
void Dropout(const c10::Half* from, c10::Half* to, int64_t count, uint64_t first,
             const DropoutMask& mask);

}  // namespace autosp
