// Writes a model's state dict as the safetensors file that PyTorch loads.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/safetensors_writer.h"

namespace autosp {

struct WrittenFile {
  std::string path;
  std::string sha256;  // hex
  int64_t size_bytes = 0;
};

// `value(name)` gives each tensor when it is its turn; it is converted to the type of its spec.
absl::StatusOr<WrittenFile> WriteStateDict(
    const std::string& path, const std::vector<TensorSpec>& tensors,
    const std::function<absl::StatusOr<at::Tensor>(const std::string& name)>& value);

}  // namespace autosp
