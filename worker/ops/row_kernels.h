// Vectorised kernels over one row or block of numbers. V is the number of classes.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>

namespace autosp {

// log(sum(exp(row))): what adds to the greatest element is accumulated in fp32. row: [V]
double LogSumExp(const float* row, int64_t num_classes);
double LogSumExp(const c10::BFloat16* row, int64_t num_classes);
double LogSumExp(const c10::Half* row, int64_t num_classes);

// row := exp(row - lse) * grad. row: [V]
void SoftmaxTimes(float* row, int64_t num_classes, float lse, float grad);
void SoftmaxTimes(c10::BFloat16* row, int64_t num_classes, float lse, float grad);
void SoftmaxTimes(c10::Half* row, int64_t num_classes, float lse, float grad);

// sum(x^2) of a block of numbers that is small enough for fp32 partial sums.
double SumOfSquares(const float* block, int64_t count);
double SumOfSquares(const c10::BFloat16* block, int64_t count);
double SumOfSquares(const c10::Half* block, int64_t count);

// row := row * keep + other * add
void BlendRow(float* row, const float* other, int64_t count, float keep, float add);

// row += other
void AddRow(float* row, const float* other, int64_t count);

}  // namespace autosp
