// The steps of a job on one rank.
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"
#include "compiler/config/job_spec.h"
#include "worker/data/data_feeder.h"
#include "worker/executor/executor.h"
#include "worker/rank/checkpointer.h"
#include "worker/rank/rank_reporter.h"

namespace autosp {

class TrainingLoop {
 public:
  // `stop`: set from outside to end after the present step. All outlive the loop.
  TrainingLoop(const JobSpec& job, Executor& executor, DataFeeder& feeder,
               Checkpointer& checkpointer, RankReporter& reporter, const std::atomic<bool>& stop);

  // Every step after the first `num_done`; ok when all are done, CANCELLED when it was told to
  // stop.
  absl::Status Run(int64_t num_done);

  // The step that runs or ran last, from 1; 0 before the first.
  int64_t current_step() const { return current_step_; }

 private:
  absl::Status RunStep(int64_t step);
  bool IsValidationDue(int64_t step) const;
  absl::StatusOr<double> MeasureValidationLoss();
  absl::Status CheckFinite(double value, const char* name, int64_t step) const;

  const JobSpec& job_;
  Executor& executor_;
  DataFeeder& feeder_;
  Checkpointer& checkpointer_;
  RankReporter& reporter_;
  const std::atomic<bool>& stop_;
  int64_t current_step_ = 0;
};

}  // namespace autosp
