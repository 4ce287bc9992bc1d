// For ranks that run without an agent: what the log would not say anyway.
#pragma once

#include <string>
#include <vector>

#include "worker/rank/rank_reporter.h"

namespace autosp {

class LogReporter final : public RankReporter {
 public:
  void Hello(const std::string& program_digest) override;
  void Step(const StepInfo& /*info*/) override {}              // the training loop logs each step
  void Checkpoint(const CheckpointInfo& /*info*/) override {}  // logged where it happens
  void Finished(const std::vector<OutputInfo>& outputs) override;
  void Verified(const VerificationResult& /*result*/) override {}  // logged where it happens
  void Failed(const FailureInfo& /*info*/) override {}
  absl::Status Close() override { return absl::OkStatus(); }
};

}  // namespace autosp
