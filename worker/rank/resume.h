// Goes on from a checkpoint: which one, and back into the executor.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "checkpoint/manifest.h"
#include "compiler/config/job_spec.h"
#include "worker/collectives/collectives.h"
#include "worker/executor/executor.h"
#include "worker/rank/rank_config.h"
#include "worker/rank/rank_reporter.h"

namespace autosp {

// Loads the newest checkpoint that the job may go on from into the loaded executor, and returns its
// step; 0 where there is none. All ranks call it, and take the same one: each checks its share of
// the files, and where one is damaged all go to the next older. Rank 0 reports what was skipped and
// what was used instead.
//
// `wanted` is the manifest that the job's own checkpoints have. FAILED_PRECONDITION where the
// newest one is whole and of another model, seed or data; UNAVAILABLE, which restarts the attempt,
// where it cannot be read now and may be whole.
absl::StatusOr<int64_t> Resume(const RankConfig& config, const JobSpec& job,
                               const CheckpointManifest& wanted, Collectives* world,
                               const Executor& executor, RankReporter& reporter);

}  // namespace autosp
