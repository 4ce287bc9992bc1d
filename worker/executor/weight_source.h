// Where the initial values of parameters and buffers come from.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/status/statusor.h"

namespace autosp {

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // The whole tensor of a state dict name, as the file has it (dtype, global sizes). It may point
  // into a mapped file: the executor copies the rank's shard out of it, converts the dtype, and
  // drops it.
  virtual absl::StatusOr<at::Tensor> Load(const std::string& name) = 0;
};

}  // namespace autosp
