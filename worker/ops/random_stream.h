// The stream of random numbers that an instruction names.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/program/program.h"
#include "worker/ops/dropout_kernel.h"

namespace autosp {

// Of the draw `node` of a graph, without the step.
absl::StatusOr<RandomStream> MakeRandomStream(int64_t seed, int64_t node);
// Of the attributes `seed` and `node`.
absl::StatusOr<RandomStream> StreamOf(const Instruction& instruction);

// Of a tensor of one element, f32.
uint32_t StepOf(const at::Tensor& step);

// i64, on `device`.
at::Tensor IndexTensor(const std::vector<int64_t>& indices, c10::Device device);

}  // namespace autosp
