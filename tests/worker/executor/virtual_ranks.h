// Runs a program on all ranks of its mesh, as threads of this process.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/program/program.h"
#include "worker/collectives/collectives.h"
#include "worker/executor/device_memory.h"
#include "worker/executor/executor.h"

namespace autosp {

using NamedTensors = std::map<std::string, at::Tensor, std::less<>>;

// The whole of an input or a weight; each rank takes its shard.
class MapFeeder final : public Feeder {
 public:
  explicit MapFeeder(const NamedTensors& whole) : whole_(whole) {}
  absl::StatusOr<at::Tensor> Feed(const FeedRequest& request) override;

 private:
  const NamedTensors& whole_;
};

class MapWeights final : public WeightSource {
 public:
  explicit MapWeights(const NamedTensors& whole) : whole_(whole) {}
  absl::StatusOr<at::Tensor> Load(const std::string& name) override;

 private:
  const NamedTensors& whole_;
};

class VirtualRanks {
 public:
  // Makes one executor per rank and loads its persistents. `feeds` is read at every run: the batch
  // of all micro-steps, whole.
  static absl::StatusOr<std::unique_ptr<VirtualRanks>> Create(const Program& program,
                                                              const NamedTensors& weights,
                                                              int64_t budget_bytes = 0);
  ~VirtualRanks();

  int size() const { return static_cast<int>(ranks_.size()); }
  Executor& executor(int rank);
  MemoryAccount& device_memory(int rank);

  absl::Status SetScalar(std::string_view name, float value);

  // By rank. The first error of any rank is the result.
  absl::StatusOr<std::vector<SectionResult>> Run(std::string_view section, NamedTensors feeds);

  // A persistent value put together from all ranks.
  absl::StatusOr<at::Tensor> Whole(std::string_view name);

 private:
  struct Rank;
  VirtualRanks() = default;
  absl::Status ForEachRank(const std::function<absl::Status(Rank&)>& body);

  NamedTensors feeds_;
  MapFeeder feeder_{feeds_};
  std::vector<std::unique_ptr<Rank>> ranks_;
};

}  // namespace autosp
