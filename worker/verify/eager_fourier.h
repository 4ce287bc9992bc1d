// Fourier transforms of a graph (compiler/ir/fourier.h) by torch.fft's own functions, for
// eager_step.h.
#pragma once

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "compiler/ir/graph.h"

namespace autosp {

// Error: a form that no import writes.
absl::StatusOr<at::Tensor> TransformEagerly(const Node& node, const at::Tensor& operand);

}  // namespace autosp
