#include "worker/ops/row_kernels.h"

#include <cmath>
#include <limits>

#include "worker/ops/fast_exp.h"
#include "worker/ops/row_values.h"
#include "worker/ops/vector_clones.h"

namespace autosp {
namespace {

template <typename T>
AUTOSP_INLINE double LogSumExpImpl(const T* row, int64_t num_classes) {
  float highest = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : highest)
  for (int64_t i = 0; i < num_classes; ++i) {
    const float x = LoadValue(row[i]);
    highest = x > highest ? x : highest;
  }
  // Beside the 1 of the greatest, what the others add would be rounded to steps of 1e-7.
  float others = 0;
  float num_highest = 0;
#pragma omp simd reduction(+ : others, num_highest)
  for (int64_t i = 0; i < num_classes; ++i) {
    const float below = LoadValue(row[i]) - highest;
    const float exp = FastExp(below);
    others += below == 0 ? 0 : exp;
    num_highest += below == 0 ? 1.0F : 0.0F;
  }
  const double sum = static_cast<double>(num_highest) + static_cast<double>(others);
  return static_cast<double>(highest) + std::log(sum);
}

template <typename T>
AUTOSP_INLINE void SoftmaxTimesImpl(T* row, int64_t num_classes, float lse, float grad) {
#pragma omp simd
  for (int64_t i = 0; i < num_classes; ++i)
    StoreValue(FastExp(LoadValue(row[i]) - lse) * grad, row + i);
}

template <typename T>
AUTOSP_INLINE double SumOfSquaresImpl(const T* block, int64_t count) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) {
    const float x = LoadValue(block[i]);
    sum += x * x;
  }
  return sum;
}

}  // namespace

AUTOSP_VECTOR_CLONES double LogSumExp(const float* row, int64_t num_classes) {
  return LogSumExpImpl(row, num_classes);
}
AUTOSP_VECTOR_CLONES double LogSumExp(const c10::BFloat16* row, int64_t num_classes) {
  return LogSumExpImpl(row, num_classes);
}
double LogSumExp(const c10::Half* row, int64_t num_classes) {
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

AUTOSP_VECTOR_CLONES void BlendRow(float* row, const float* other, int64_t count, float keep,
                                   float add) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) row[i] = row[i] * keep + other[i] * add;
}

AUTOSP_VECTOR_CLONES void AddRow(float* row, const float* other, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) row[i] += other[i];
}

}  // namespace autosp
