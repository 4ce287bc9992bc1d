// One rank from its spec to its end.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "checkpoint/manifest.h"
#include "compiler/config/job_spec.h"
#include "compiler/program/program.h"
#include "worker/checkpoint/weight_files.h"
#include "worker/collectives/collectives.h"
#include "worker/collectives/shared_memory_collectives.h"
#include "worker/collectives/tcp_rendezvous.h"
#include "worker/gpu/torch_gpu.h"
#include "worker/rank/checkpointer.h"
#include "worker/rank/rank_config.h"
#include "worker/rank/rank_groups.h"
#include "worker/rank/rank_reporter.h"

namespace autosp {

class RankProcess {
 public:
  struct Options {
    bool profile = false;  // log what each instruction took
  };
  RankProcess(const RankConfig& config, const Options& options);

  // Loads everything, trains, writes the weights (rank 0), and reports. CANCELLED after Stop.
  absl::Status Run(RankReporter& reporter);

  // Ends Run at the next chance; the peers are told. False while the rank is still loading or waits
  // for its peers to come up: then there is nothing to be ended in order. Callable from any thread.
  bool Stop(absl::string_view reason);

 private:
  absl::Status Train(RankReporter& reporter, std::vector<OutputInfo>& outputs);
  absl::StatusOr<Program> LoadProgram() const;
  absl::StatusOr<JobSpec> LoadJob() const;
  absl::Status OpenOwnGroups(const Program& program);
  absl::StatusOr<std::unique_ptr<TcpRendezvous>> MakeRendezvous() const;
  bool IsOnOneNode(const ProcessGroup& group) const;
  absl::StatusOr<std::unique_ptr<Collectives>> OpenCheckpointGroup(SharedMemoryOptions options,
                                                                   TcpRendezvous* rendezvous) const;
  absl::StatusOr<CheckpointManifest> ManifestTemplate(const Program& program, const JobSpec& job,
                                                      int64_t num_tokens,
                                                      const WeightFiles& weights) const;
  // The trained weights and the model's configuration; ranks other than 0 give their parts.
  absl::Status WriteModel(const Executor& executor, WeightFiles& weights, const OutputSpec& output,
                          const std::string& model_config, std::vector<OutputInfo>& outputs) const;
  void CloseGroups(const absl::Status& status);

  const RankConfig config_;
  const Options options_;
  int64_t current_step_ = 0;
  std::atomic<bool> stop_ = false;
  std::unique_ptr<TorchGpu> gpu_;  // null: the CPU; outlives the groups
  std::mutex mutex_;               // guards the pointers to groups, for Stop
  std::unique_ptr<RankGroups> groups_;
  std::unique_ptr<Collectives> checkpoint_group_;  // of all ranks; null for one alone
  std::unique_ptr<Checkpointer> checkpointer_;
};

}  // namespace autosp
