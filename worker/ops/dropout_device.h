// Random numbers and dropout by ATen's kernels, for devices whose memory the host does not read:
// the same elements as dropout_kernel.h keeps, and the same numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include "worker/ops/dropout_kernel.h"

namespace autosp {

// x [rows, columns], contiguous. Element (r, c) is element row_bases[r] + columns[c] of the whole
// tensor (i64 tensors on the device of x), or padding, which becomes 0, where one of them is
// negative. A random word takes some thirty operations on 64-bit integers here, and its elements
// are processed 2^22 at a time.
at::Tensor DropoutOnDevice(const at::Tensor& x, const at::Tensor& row_bases,
                           const at::Tensor& columns, const DropoutMask& mask);

// result [rows, columns] f32, contiguous, likewise: numbers between 0 and 1, and 0 in padding.
void UniformOnDevice(const at::Tensor& result, const at::Tensor& row_bases,
                     const at::Tensor& columns, const RandomStream& stream);

}  // namespace autosp
