// Reports to the agent over its unix socket.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/rank/rank_config.h"
#include "worker/rank/rank_reporter.h"

namespace autosp {

// Reports queue up and are sent in order by gRPC's own threads. The call lives as long as the rank:
// when it breaks, or the agent refuses the rank, nobody would know of it any more, so that it has
// to end itself. Thread-safe.
class GrpcReporter final : public RankReporter {
 public:
  // Called once, from a thread of gRPC, when the call ends before Close.
  using OnLost = std::function<void(const absl::Status& why)>;

  // Waits for the agent to listen, for `timeout` at most.
  static absl::StatusOr<std::unique_ptr<GrpcReporter>> Connect(const RankConfig& config,
                                                               absl::Duration timeout,
                                                               OnLost on_lost);
  ~GrpcReporter() override;

  void Hello(const std::string& program_digest) override;
  void Step(const StepInfo& info) override;
  void Checkpoint(const CheckpointInfo& info) override;
  void Finished(const std::vector<OutputInfo>& outputs) override;
  void Verified(const VerificationResult& result) override;
  void Failed(const FailureInfo& info) override;
  absl::Status Close() override;

 private:
  class Stream;
  GrpcReporter(const RankConfig& config, std::shared_ptr<Stream> stream);

  const RankConfig config_;
  std::shared_ptr<Stream> stream_;
};

}  // namespace autosp
