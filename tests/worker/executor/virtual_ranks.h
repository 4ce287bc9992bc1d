// Virtual ranks that tests feed with whole tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/program/program.h"
#include "worker/executor/device_memory.h"
#include "worker/executor/executor.h"
#include "worker/rank/virtual_ranks.h"
#include "worker/verify/batch_feeder.h"

namespace autosp {

class MapWeights final : public WeightSource {
 public:
  explicit MapWeights(const NamedTensors& whole) : whole_(whole) {}
  absl::StatusOr<at::Tensor> Load(const std::string& name) override;

 private:
  const NamedTensors& whole_;
};

class VirtualRanks {
 public:
  // Makes one executor per rank and loads its persistents. Threads are chosen here.
  static absl::StatusOr<std::unique_ptr<VirtualRanks>> Create(const Program& program,
                                                              const NamedTensors& weights,
                                                              VirtualRankOptions options = {});

  int size() const { return static_cast<int>(world_->world_size()); }
  Executor& executor(int rank) { return world_->executor(rank); }
  MemoryAccount& device_memory(int rank) { return world_->device_memory(rank); }

  absl::Status SetScalar(std::string_view name, float value);

  // Results by rank. `feeds` is the batch of all micro-steps, whole. The first error of any rank is
  // the result.
  absl::StatusOr<std::vector<SectionResult>> Run(std::string_view section, NamedTensors feeds);

  // A persistent value put together from all ranks.
  absl::StatusOr<at::Tensor> Whole(std::string_view name);

 private:
  VirtualRanks() = default;

  std::shared_ptr<NamedTensors> feeds_ = std::make_shared<NamedTensors>();
  std::unique_ptr<VirtualWorld> world_;
};

}  // namespace autosp
