// Writes the checkpoints of a job while it trains.
//
// When one is due, each rank copies its part of the state to host memory and goes on training; a
// thread of the rank writes the copy. When the files of all ranks are on disk, rank 0 commits them.
// The ranks' threads meet in a group of their own for that, so that nothing waits for a step.
//
// A disk that is full, read-only or broken costs the checkpoint, not the job: the last committed
// one stays, rank 0 reports what happened, and the next one is tried when it is due. Only when one
// is still being written as the next is due does training wait, which keeps one copy at a time, and
// all ranks at the same ones.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/manifest.h"
#include "compiler/config/job_spec.h"
#include "worker/checkpoint/shard_snapshot.h"
#include "worker/collectives/collectives.h"
#include "worker/executor/executor.h"
#include "worker/rank/rank_config.h"
#include "worker/rank/rank_reporter.h"

namespace autosp {

// Used by the training thread.
class Checkpointer {
 public:
  // `world` is the group of all ranks, null for one alone, and is used by nothing else while a
  // checkpoint is being written. `manifest` has everything but step and files. All outlive it.
  Checkpointer(const RankConfig& config, const JobSpec& job, CheckpointManifest manifest,
               Collectives* world, RankReporter& reporter);
  // Waits for the thread. Abort `world` before, where the peers may not come.
  ~Checkpointer();

  // FAILED_PRECONDITION where a checkpoint of another job has the name of one that is to come after
  // `num_done` steps. To be asked of a job that does not go on from what is in its folder.
  absl::Status CheckNamesAfter(int64_t num_done) const;

  // After `step` (from 1) is done: begins a checkpoint if one is due.
  absl::Status AfterStep(int64_t step, const Executor& executor);
  // Until the last one is on disk, or has failed.
  void Finish();

 private:
  bool IsDue(int64_t step) const;
  void Write(int64_t step, const ShardSnapshot& snapshot);
  absl::StatusOr<std::vector<ManifestFile>> WriteFiles(int64_t step, const ShardSnapshot& snapshot);
  absl::Status Commit(int64_t step, std::vector<ManifestFile> files);
  void Report(int64_t step, const absl::Status& status, int64_t num_bytes, double seconds);

  const int64_t rank_;
  const int64_t every_steps_;
  const int64_t keep_;
  const int64_t num_steps_;
  const int64_t global_batch_size_;
  const CheckpointFolder folder_;
  const CheckpointManifest manifest_;
  Collectives* const world_;
  RankReporter& reporter_;
  int64_t last_step_ = 0;  // of the last one that was begun
  std::thread writer_;
};

}  // namespace autosp
