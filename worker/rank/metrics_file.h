// Every step's numbers beside the weights.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/file.h"
#include "worker/rank/rank_reporter.h"

namespace autosp {

// Writes each step as a line of JSON, as the job runs, and passes every report on. A line is
// written at once; only a crash can leave the last one cut off. A disk that takes no more ends the
// file, not the job. Thread-compatible.
class MetricsFile final : public RankReporter {
 public:
  // Opens "metrics.jsonl" in `directory`. What an earlier attempt has written of the first
  // `num_done` steps stays; the rest is done again, or is of another job, and goes. `next` outlives
  // the file.
  static absl::StatusOr<std::unique_ptr<MetricsFile>> Create(const std::string& directory,
                                                             int64_t num_done, RankReporter& next);

  void Hello(const std::string& program_digest) override { next_.Hello(program_digest); }
  void Step(const StepInfo& info) override;
  void Checkpoint(const CheckpointInfo& info) override { next_.Checkpoint(info); }
  void Finished(const std::vector<OutputInfo>& outputs) override { next_.Finished(outputs); }
  void Verified(const VerificationResult& result) override { next_.Verified(result); }
  void Failed(const FailureInfo& info) override { next_.Failed(info); }
  absl::Status Close() override { return next_.Close(); }

  // What was written, after the last step. An error when not every step could be.
  absl::StatusOr<OutputInfo> Output() const;

 private:
  MetricsFile(std::string path, UniqueFd file, RankReporter& next)
      : path_(std::move(path)), file_(std::move(file)), next_(next) {}

  const std::string path_;
  const UniqueFd file_;
  RankReporter& next_;
  absl::Status status_;  // of the first write that failed
};

// One line, without its end.
std::string StepToJson(const StepInfo& info);

}  // namespace autosp
