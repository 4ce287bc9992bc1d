#include "worker/ops/dropout_kernel.h"

#include <algorithm>

#include "worker/ops/row_values.h"
#include "worker/ops/vector_clones.h"

namespace autosp {
namespace {

constexpr int64_t kChunk = 1024;  // elements whose random words fit the innermost cache

// The words of `num_counters` counters from `first` on.
AUTOSP_INLINE void FillWords(uint64_t first, int64_t num_counters, const RandomStream& stream,
                             uint32_t* words) {
#pragma omp simd
  for (int64_t i = 0; i < num_counters; ++i) {
    const uint64_t index = first + static_cast<uint64_t>(i);
    const PhiloxWords random =
        Philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), stream.step,
                stream.seed_high},
               stream.key);
    words[4 * i] = random[0];
    words[4 * i + 1] = random[1];
    words[4 * i + 2] = random[2];
    words[4 * i + 3] = random[3];
  }
}

template <typename T>
AUTOSP_INLINE void DropoutImpl(const T* from, T* to, int64_t count, uint64_t first,
                               const DropoutMask& mask) {
  uint32_t words[kChunk + 8];
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t length = std::min(kChunk, count - begin);
    const uint64_t index = first + static_cast<uint64_t>(begin);
    const auto skipped = static_cast<int64_t>(index % 4);
    FillWords(index / 4, (skipped + length + 3) / 4, mask, words);
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      const float kept = LoadValue(from[begin + i]) * mask.scale;
      StoreValue(words[skipped + i] >= mask.threshold ? kept : 0.0F, to + begin + i);
    }
  }
}

}  // namespace

AUTOSP_VECTOR_CLONES void Uniform(float* to, int64_t count, uint64_t first,
                                  const RandomStream& stream) {
  uint32_t words[kChunk + 8];
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t length = std::min(kChunk, count - begin);
    const uint64_t index = first + static_cast<uint64_t>(begin);
    const auto skipped = static_cast<int64_t>(index % 4);
    FillWords(index / 4, (skipped + length + 3) / 4, stream, words);
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) to[begin + i] = UniformOf(words[skipped + i]);
  }
}
AUTOSP_VECTOR_CLONES void Dropout(const float* from, float* to, int64_t count, uint64_t first,
                                  const DropoutMask& mask) {
  DropoutImpl(from, to, count, first, mask);
}
AUTOSP_VECTOR_CLONES void Dropout(const c10::BFloat16* from, c10::BFloat16* to, int64_t count,
                                  uint64_t first, const DropoutMask& mask) {
  DropoutImpl(from, to, count, first, mask);
}
void Dropout(const c10::Half* from, c10::Half* to, int64_t count, uint64_t first,
             const DropoutMask& mask) {
  DropoutImpl(from, to, count, first, mask);
}

}  // namespace autosp
