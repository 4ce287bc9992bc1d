#include "worker/ops/row_kernels.h"

#include <bit>
#include <cmath>
#include <limits>

#include "worker/ops/fast_exp.h"
#include "worker/ops/vector_clones.h"

namespace autosp {
namespace {

AUTOSP_INLINE float Load(float value) { return value; }
AUTOSP_INLINE float Load(c10::Half value) { return static_cast<float>(value); }
AUTOSP_INLINE float Load(c10::BFloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.x) << 16);
}

AUTOSP_INLINE void Store(float value, float* to) { *to = value; }
AUTOSP_INLINE void Store(float value, c10::Half* to) { *to = value; }
// Rounds to nearest even as c10 does, without its branch for NaN: a NaN keeps its sign and upper
// bits.
AUTOSP_INLINE void Store(float value, c10::BFloat16* to) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  to->x = static_cast<uint16_t>(value == value ? rounded : 0x7FC0U);
}

template <typename T>
AUTOSP_INLINE float LogSumExpImpl(const T* row, int64_t num_classes) {
  float highest = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : highest)
  for (int64_t i = 0; i < num_classes; ++i) {
    const float x = Load(row[i]);
    highest = x > highest ? x : highest;
  }
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < num_classes; ++i) sum += FastExp(Load(row[i]) - highest);
  return highest + std::log(sum);
}

template <typename T>
AUTOSP_INLINE void SoftmaxTimesImpl(T* row, int64_t num_classes, float lse, float grad) {
#pragma omp simd
  for (int64_t i = 0; i < num_classes; ++i) Store(FastExp(Load(row[i]) - lse) * grad, row + i);
}

template <typename T>
AUTOSP_INLINE double SumOfSquaresImpl(const T* block, int64_t count) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) {
    const float x = Load(block[i]);
    sum += x * x;
  }
  return sum;
}

}  // namespace

AUTOSP_VECTOR_CLONES float LogSumExp(const float* row, int64_t num_classes) {
  return LogSumExpImpl(row, num_classes);
}
AUTOSP_VECTOR_CLONES float LogSumExp(const c10::BFloat16* row, int64_t num_classes) {
  return LogSumExpImpl(row, num_classes);
}
float LogSumExp(const c10::Half* row, int64_t num_classes) {
  return LogSumExpImpl(row, num_classes);
}

AUTOSP_VECTOR_CLONES void SoftmaxTimes(float* row, int64_t num_classes, float lse, float grad) {
  SoftmaxTimesImpl(row, num_classes, lse, grad);
}
AUTOSP_VECTOR_CLONES void SoftmaxTimes(c10::BFloat16* row, int64_t num_classes, float lse,
                                       float grad) {
  SoftmaxTimesImpl(row, num_classes, lse, grad);
}
void SoftmaxTimes(c10::Half* row, int64_t num_classes, float lse, float grad) {
  SoftmaxTimesImpl(row, num_classes, lse, grad);
}

AUTOSP_VECTOR_CLONES double SumOfSquares(const float* block, int64_t count) {
  return SumOfSquaresImpl(block, count);
}
AUTOSP_VECTOR_CLONES double SumOfSquares(const c10::BFloat16* block, int64_t count) {
  return SumOfSquaresImpl(block, count);
}
double SumOfSquares(const c10::Half* block, int64_t count) {
  return SumOfSquaresImpl(block, count);
}

}  // namespace autosp
