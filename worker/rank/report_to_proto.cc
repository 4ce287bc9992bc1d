#include "worker/rank/report_to_proto.h"

#include <unistd.h>

#include "proto/verification_to_proto.h"

namespace autosp {
namespace {

// Statuses quote programs and files; an agent keeps the end of the log too.
constexpr size_t kMaxMessageBytes = 16 << 10;

v1::RankReport ReportOf(const RankConfig& config) {
  v1::RankReport report;
  report.mutable_attempt()->set_job_id(config.job_id);
  report.mutable_attempt()->set_generation(config.generation);
  report.set_rank(static_cast<int32_t>(config.rank));
  return report;
}

v1::CheckpointReport::Event EventToProto(CheckpointEvent event) {
  switch (event) {
    case CheckpointEvent::kCommitted:
      return v1::CheckpointReport::EVENT_COMMITTED;
    case CheckpointEvent::kNotWritten:
      return v1::CheckpointReport::EVENT_NOT_WRITTEN;
    case CheckpointEvent::kResumed:
      return v1::CheckpointReport::EVENT_RESUMED;
    case CheckpointEvent::kSkipped:
      return v1::CheckpointReport::EVENT_SKIPPED;
  }
  return v1::CheckpointReport::EVENT_UNSPECIFIED;
}

}  // namespace

v1::RankReport HelloToProto(const RankConfig& config, const std::string& program_digest) {
  v1::RankReport report = ReportOf(config);
  report.mutable_hello()->set_pid(getpid());
  report.mutable_hello()->set_program_digest(program_digest);
  return report;
}

v1::RankReport StepToProto(const RankConfig& config, const StepInfo& info) {
  v1::RankReport report = ReportOf(config);
  v1::StepReport& step = *report.mutable_step();
  step.set_step(info.step);
  step.set_loss(info.loss);
  step.set_tokens(info.tokens);
  step.set_step_seconds(info.step_seconds);
  step.set_learning_rate(info.learning_rate);
  if (info.grad_norm) step.set_grad_norm(*info.grad_norm);
  if (info.validation_loss) step.set_validation_loss(*info.validation_loss);
  for (const auto& [account, memory] : info.memory) {
    v1::MemoryUse& use = *step.add_memory();
    use.set_account(account);
    use.set_current_bytes(memory.current_bytes);
    use.set_peak_bytes(memory.peak_bytes);
  }
  for (const StepInfo::Collective& collective : info.collectives) {
    v1::CollectiveUse& use = *step.add_collectives();
    use.set_kind(collective.kind);
    use.set_phase(collective.phase);
    use.set_calls(collective.calls);
    use.set_bytes_received(collective.bytes_received);
    use.set_seconds(collective.seconds);
  }
  return report;
}

v1::RankReport CheckpointToProto(const RankConfig& config, const CheckpointInfo& info) {
  v1::RankReport report = ReportOf(config);
  v1::CheckpointReport& checkpoint = *report.mutable_checkpoint();
  checkpoint.set_event(EventToProto(info.event));
  checkpoint.set_step(info.step);
  checkpoint.set_path(info.path);
  checkpoint.set_message(info.message.substr(0, kMaxMessageBytes));
  checkpoint.set_size_bytes(info.size_bytes);
  checkpoint.set_seconds(info.seconds);
  return report;
}

v1::RankReport FinishedToProto(const RankConfig& config, const std::vector<OutputInfo>& outputs) {
  v1::RankReport report = ReportOf(config);
  report.mutable_finished();
  for (const OutputInfo& info : outputs) {
    v1::OutputFile& output = *report.mutable_finished()->add_outputs();
    output.set_kind(info.kind);
    output.set_path(info.path);
    output.set_sha256(info.sha256);
    output.set_size_bytes(info.size_bytes);
  }
  return report;
}

v1::RankReport VerifiedToProto(const RankConfig& config, const VerificationResult& result) {
  v1::RankReport report = ReportOf(config);
  *report.mutable_finished()->mutable_verification() = VerificationToProto(result);
  return report;
}

v1::RankReport FailureToProto(const RankConfig& config, const FailureInfo& info) {
  v1::RankReport report = ReportOf(config);
  v1::RankFailure& failure = *report.mutable_failure();
  failure.set_status_code(static_cast<int32_t>(info.status.code()));
  failure.set_message(std::string(info.status.message().substr(0, kMaxMessageBytes)));
  failure.set_step(info.step);
  failure.set_is_peer_lost(info.is_peer_lost);
  return report;
}

}  // namespace autosp
