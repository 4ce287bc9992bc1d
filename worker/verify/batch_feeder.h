// Feeds the inputs of a program from whole tensors, of which each rank takes its shard.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/executor/feeder.h"

namespace autosp {

// By name. Of a batch: that of all micro-steps and ranks.
using NamedTensors = std::map<std::string, at::Tensor, std::less<>>;

// The tensors of a safetensors file, copied.
absl::StatusOr<NamedTensors> ReadSafetensors(const std::string& path);

// Thread-compatible; feeders of several ranks may share the batch.
class BatchFeeder final : public Feeder {
 public:
  explicit BatchFeeder(std::shared_ptr<const NamedTensors> batch) : batch_(std::move(batch)) {}

  // The tensor is converted to the type of the input.
  absl::StatusOr<at::Tensor> Feed(const FeedRequest& request) override;

 private:
  std::shared_ptr<const NamedTensors> batch_;
};

}  // namespace autosp
