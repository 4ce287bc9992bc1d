// Runs all ranks of a program as threads of one process: to prove that a plan computes what one
// device would, without processes, shared memory or agents.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "compiler/program/program.h"
#include "worker/executor/device_memory.h"
#include "worker/executor/executor.h"
#include "worker/gpu/torch_gpu.h"
#include "worker/rank/rank_groups.h"

namespace autosp {

struct VirtualRankOptions {
  int64_t device_budget_bytes = 0;            // of each rank; 0: no limit
  absl::Duration timeout = absl::Minutes(5);  // of collectives
  int num_threads = 1;                        // for operators, of each rank
  // Null: ranks compute on the CPU. They may share one GPU, whose memory figures are then those of
  // all of them together.
  TorchGpu* gpu = nullptr;
  // Puts a group between threads into one of another kind; on the thread of the rank. Null: none.
  std::function<absl::StatusOr<std::unique_ptr<Collectives>>(int64_t rank,
                                                             std::unique_ptr<Collectives> group)>
      wrap_group = nullptr;
};

// Thread-compatible. Memory is counted where the process has called InstallCountingAllocator.
class VirtualWorld {
 public:
  using MakeFeeder = std::function<absl::StatusOr<std::unique_ptr<Feeder>>(int64_t rank)>;

  // Makes the executors and loads the weights. `weights` is read by all threads at once; null where
  // the program has no parameters.
  static absl::StatusOr<std::unique_ptr<VirtualWorld>> Create(
      const Program& program, WeightSource* weights, const MakeFeeder& make_feeder,
      const VirtualRankOptions& options = {});

  ~VirtualWorld();

  int64_t world_size() const { return static_cast<int64_t>(ranks_.size()); }
  Executor& executor(int64_t rank) { return *ranks_[rank]->executor; }
  Feeder& feeder(int64_t rank) { return *ranks_[rank]->feeder; }
  MemoryAccount& device_memory(int64_t rank) { return ranks_[rank]->device; }

  // Runs `body` on the thread of each rank, all at once. When one fails, the others are told, and
  // the error that is the cause is returned.
  absl::Status ForEach(const std::function<absl::Status(int64_t rank)>& body);

  // Runs a section on every rank; results by rank.
  absl::StatusOr<std::vector<SectionResult>> Run(absl::string_view section);
  absl::Status SetScalar(absl::string_view name, float value);

 private:
  struct VirtualRank {
    explicit VirtualRank(int64_t budget_bytes) : device("device", budget_bytes) {}

    MemoryAccount device;
    MemoryAccount pinned_host{"pinned_host"};
    MemoryAccount communication{"communication", /*budget_bytes=*/0, &device};
    std::unique_ptr<Feeder> feeder;
    std::unique_ptr<RankGroups> groups;
    std::unique_ptr<Executor> executor;
  };

  explicit VirtualWorld(const VirtualRankOptions& options) : options_(options) {}
  absl::Status OpenAllGroups(const Program& program);
  absl::Status CreateExecutor(const Program& program, int64_t rank);

  VirtualRankOptions options_;
  std::vector<std::unique_ptr<VirtualRank>> ranks_;
};

}  // namespace autosp
