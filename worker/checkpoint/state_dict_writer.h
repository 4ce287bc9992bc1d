// Writes tensors as the safetensors file that PyTorch loads.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/model_files.h"
#include "checkpoint/safetensors_writer.h"

namespace autosp {

// Appends the value, on any device, in the type of the entry.
absl::Status AppendTensor(const SafetensorsEntry& entry, const at::Tensor& value,
                          SafetensorsWriter& writer);

// `value(name)` gives each tensor when it is its turn; it is converted to the type of its spec.
absl::StatusOr<WrittenFile> WriteStateDict(
    const std::string& path, const std::vector<TensorSpec>& tensors,
    const std::function<absl::StatusOr<at::Tensor>(const std::string& name)>& value);

}  // namespace autosp
