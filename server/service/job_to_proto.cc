#include "server/service/job_to_proto.h"

#include <algorithm>

#include "google/protobuf/timestamp.pb.h"
#include "proto/rank_state_to_proto.h"
#include "proto/verification_to_proto.h"

namespace autosp {
namespace {

bool HasCome(absl::Time time) {
  return time != absl::InfiniteFuture() && time != absl::InfinitePast();
}

v1::FailureCause::Kind CauseKindToProto(FailureCause::Kind kind) {
  switch (kind) {
    case FailureCause::Kind::kRankLost:
      return v1::FailureCause::KIND_RANK_LOST;
    case FailureCause::Kind::kRankFailed:
      return v1::FailureCause::KIND_RANK_FAILED;
    case FailureCause::Kind::kAgentLost:
      return v1::FailureCause::KIND_AGENT_LOST;
    case FailureCause::Kind::kHung:
      return v1::FailureCause::KIND_HUNG;
    case FailureCause::Kind::kStartFailed:
      return v1::FailureCause::KIND_START_FAILED;
    case FailureCause::Kind::kCancelled:
      return v1::FailureCause::KIND_CANCELLED;
    case FailureCause::Kind::kNotReattached:
      return v1::FailureCause::KIND_NOT_REATTACHED;
    case FailureCause::Kind::kPlanDiffers:
      return v1::FailureCause::KIND_PLAN_DIFFERS;
  }
  return v1::FailureCause::KIND_UNSPECIFIED;
}

v1::PendingReason::Code PendingCodeToProto(PendingReason::Code code) {
  switch (code) {
    case PendingReason::Code::kDevices:
      return v1::PendingReason::CODE_WAITING_FOR_DEVICES;
    case PendingReason::Code::kNodes:
      return v1::PendingReason::CODE_WAITING_FOR_NODES;
    case PendingReason::Code::kBehindJob:
      return v1::PendingReason::CODE_WAITING_BEHIND_JOB;
    case PendingReason::Code::kReattach:
      return v1::PendingReason::CODE_WAITING_FOR_REATTACH;
    case PendingReason::Code::kRetryStart:
      return v1::PendingReason::CODE_WAITING_TO_RETRY_START;
    case PendingReason::Code::kRestart:
      return v1::PendingReason::CODE_WAITING_TO_RESTART;
  }
  return v1::PendingReason::CODE_UNSPECIFIED;
}

v1::FailureCause CauseToProto(const FailureCause& cause) {
  v1::FailureCause proto;
  proto.set_kind(CauseKindToProto(cause.kind));
  proto.set_message(cause.message);
  proto.set_rank(cause.rank ? static_cast<int32_t>(cause.rank->value()) : -1);
  proto.set_node_id(cause.node.value());
  proto.set_last_step(cause.last_step);
  proto.set_generation(cause.generation.value());
  proto.mutable_log_lines()->Assign(cause.log_lines.begin(), cause.log_lines.end());
  proto.set_status_code(static_cast<int32_t>(cause.status_code));
  proto.set_instruction(cause.instruction);
  SetTime(cause.time, *proto.mutable_time());
  return proto;
}

v1::PendingReason PendingToProto(const PendingReason& pending) {
  v1::PendingReason proto;
  proto.set_code(PendingCodeToProto(pending.code));
  proto.set_message(pending.message);
  proto.set_devices_needed(static_cast<int32_t>(pending.devices_needed));
  proto.set_devices_free(static_cast<int32_t>(pending.devices_free));
  proto.set_devices_total(static_cast<int32_t>(pending.devices_total));
  proto.set_nodes_registered(static_cast<int32_t>(pending.nodes_registered));
  proto.set_queue_position(static_cast<int32_t>(pending.queue_position));
  proto.set_blocking_job_id(pending.blocking_job.value());
  return proto;
}

v1::JobProgress ProgressToProto(const Job& job) {
  const JobProgress& progress = job.progress;
  v1::JobProgress proto;
  proto.set_last_step(progress.last_step);
  proto.set_num_steps(job.request->num_steps);
  proto.set_first_loss(progress.first_loss);
  proto.set_last_loss(progress.last_loss);
  if (progress.last_validation_loss) {
    proto.set_last_validation_loss(*progress.last_validation_loss);
  }
  proto.set_step_seconds(progress.step_seconds);
  if (progress.step_seconds > 0) {
    proto.set_tokens_per_second(static_cast<double>(progress.tokens_of_last_step) /
                                progress.step_seconds);
  }
  proto.set_tokens_total(progress.tokens_total);
  proto.mutable_peak_bytes()->insert(progress.peak_bytes.begin(), progress.peak_bytes.end());
  if (HasCome(progress.last_step_time)) {
    SetTime(progress.last_step_time, *proto.mutable_last_step_time());
  }
  proto.set_checkpoint_step(progress.checkpoint_step);
  proto.set_checkpoint_path(progress.checkpoint_path);
  proto.set_checkpoints_failed(progress.num_failed_checkpoints);
  return proto;
}

v1::JobRestarts RestartsToProto(const Job& job) {
  v1::JobRestarts proto;
  proto.set_used(job.restarts.used);
  proto.set_max(job.request->max_restarts);
  proto.set_total(job.restarts.total);
  proto.set_last_reason(job.restarts.last_reason);
  return proto;
}

v1::CheckpointReport::Event EventToProto(CheckpointNote::Event event) {
  switch (event) {
    case CheckpointNote::Event::kCommitted:
      return v1::CheckpointReport::EVENT_COMMITTED;
    case CheckpointNote::Event::kNotWritten:
      return v1::CheckpointReport::EVENT_NOT_WRITTEN;
    case CheckpointNote::Event::kResumed:
      return v1::CheckpointReport::EVENT_RESUMED;
    case CheckpointNote::Event::kSkipped:
      return v1::CheckpointReport::EVENT_SKIPPED;
  }
  return v1::CheckpointReport::EVENT_UNSPECIFIED;
}

v1::CheckpointReport CheckpointToProto(const CheckpointNote& note) {
  v1::CheckpointReport proto;
  proto.set_event(EventToProto(note.event));
  proto.set_step(note.step);
  proto.set_path(note.path);
  proto.set_message(note.message);
  proto.set_size_bytes(note.size_bytes);
  proto.set_seconds(note.seconds);
  return proto;
}

v1::VerificationDone::Outcome OutcomeToProto(VerificationNote::Outcome outcome) {
  switch (outcome) {
    case VerificationNote::Outcome::kEqual:
      return v1::VerificationDone::OUTCOME_EQUAL;
    case VerificationNote::Outcome::kDiffers:
      return v1::VerificationDone::OUTCOME_DIFFERS;
    case VerificationNote::Outcome::kNoResult:
      return v1::VerificationDone::OUTCOME_NO_RESULT;
    case VerificationNote::Outcome::kKnown:
      return v1::VerificationDone::OUTCOME_KNOWN;
  }
  return v1::VerificationDone::OUTCOME_UNSPECIFIED;
}

v1::VerificationDone VerificationDoneToProto(const VerificationNote& note) {
  v1::VerificationDone proto;
  proto.set_outcome(OutcomeToProto(note.outcome));
  if (note.has_result()) *proto.mutable_result() = VerificationToProto(note.result);
  proto.set_known_from_job_id(note.known_from.value());
  return proto;
}

v1::RankPlacement RankToProto(int64_t index, const RankPart& rank) {
  v1::RankPlacement proto;
  proto.set_rank(static_cast<int32_t>(index));
  proto.set_node_id(rank.node.value());
  proto.set_local_rank(static_cast<int32_t>(rank.local_rank));
  proto.set_device_index(static_cast<int32_t>(rank.device_index));
  proto.set_last_step(rank.last_step);
  proto.set_state(RankStateToProto(rank.state));
  proto.set_pid(rank.pid);
  return proto;
}

v1::StepReport StepReportToProto(const StepReport& report) {
  v1::StepReport proto;
  proto.set_step(report.step);
  proto.set_loss(report.loss);
  proto.set_tokens(report.tokens);
  proto.set_step_seconds(report.step_seconds);
  proto.set_learning_rate(report.learning_rate);
  if (report.grad_norm) proto.set_grad_norm(*report.grad_norm);
  if (report.validation_loss) proto.set_validation_loss(*report.validation_loss);
  for (const ReportedMemory& use : report.memory) {
    v1::MemoryUse* out = proto.add_memory();
    out->set_account(use.account);
    out->set_current_bytes(use.current_bytes);
    out->set_peak_bytes(use.peak_bytes);
  }
  for (const ReportedCollective& use : report.collectives) {
    v1::CollectiveUse* out = proto.add_collectives();
    out->set_kind(use.kind);
    out->set_phase(use.phase);
    out->set_calls(use.calls);
    out->set_bytes_received(use.bytes_received);
    out->set_seconds(use.seconds);
  }
  return proto;
}

v1::Node::State NodeStateToProto(NodeView::State state) {
  switch (state) {
    case NodeView::State::kExpected:
      return v1::Node::STATE_EXPECTED;
    case NodeView::State::kReady:
      return v1::Node::STATE_READY;
    case NodeView::State::kSuspect:
      return v1::Node::STATE_SUSPECT;
    case NodeView::State::kLost:
      return v1::Node::STATE_LOST;
    case NodeView::State::kEnding:
      return v1::Node::STATE_ENDING;
  }
  return v1::Node::STATE_UNSPECIFIED;
}

}  // namespace

void SetTime(absl::Time time, google::protobuf::Timestamp& out) {
  const int64_t seconds = absl::ToUnixSeconds(time);
  out.set_seconds(seconds);
  out.set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
}

v1::JobState JobStateToProto(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return v1::JOB_STATE_QUEUED;
    case JobState::kVerifying:
      return v1::JOB_STATE_VERIFYING;
    case JobState::kStarting:
      return v1::JOB_STATE_STARTING;
    case JobState::kRunning:
      return v1::JOB_STATE_RUNNING;
    case JobState::kStopping:
      return v1::JOB_STATE_STOPPING;
    case JobState::kSucceeded:
      return v1::JOB_STATE_SUCCEEDED;
    case JobState::kFailed:
      return v1::JOB_STATE_FAILED;
    case JobState::kCancelled:
      return v1::JOB_STATE_CANCELLED;
  }
  return v1::JOB_STATE_UNSPECIFIED;
}

v1::Job JobToProto(const Job& job) {
  v1::Job proto;
  proto.set_job_id(job.id.value());
  proto.set_name(job.request->name);
  proto.set_state(JobStateToProto(job.state));
  proto.set_reason(job.reason);
  if (job.pending) *proto.mutable_pending() = PendingToProto(*job.pending);
  if (job.cause) *proto.mutable_cause() = CauseToProto(*job.cause);
  proto.set_generation(job.generation.value());
  proto.set_revision(job.revision);
  proto.set_world_size(static_cast<int32_t>(job.request->world_size));
  proto.set_plan_digest(job.request->plan_digest);
  *proto.mutable_progress() = ProgressToProto(job);
  *proto.mutable_restarts() = RestartsToProto(job);
  if (job.verification) *proto.mutable_verification() = VerificationDoneToProto(*job.verification);
  for (size_t i = 0; i < job.ranks().size(); ++i) {
    *proto.add_ranks() = RankToProto(static_cast<int64_t>(i), job.ranks()[i]);
  }
  for (const OutputFile& output : job.outputs) {
    v1::OutputFile* out = proto.add_outputs();
    out->set_kind(output.kind);
    out->set_path(output.path);
    out->set_sha256(output.sha256);
    out->set_size_bytes(output.size_bytes);
  }
  proto.set_output_directory(job.request->output_directory);
  SetTime(job.create_time, *proto.mutable_create_time());
  if (HasCome(job.start_time)) SetTime(job.start_time, *proto.mutable_start_time());
  if (HasCome(job.end_time)) SetTime(job.end_time, *proto.mutable_end_time());
  return proto;
}

v1::JobEvent HistoryEntryToProto(const HistoryEntry& entry) {
  v1::JobEvent proto;
  proto.set_job_id(entry.job.value());
  proto.set_sequence(entry.sequence);
  SetTime(entry.time, *proto.mutable_time());
  proto.set_generation(entry.generation.value());
  if (const auto* change = std::get_if<StateChange>(&entry.what)) {
    v1::StateChanged& out = *proto.mutable_state_changed();
    if (change->from) out.set_from(JobStateToProto(*change->from));
    out.set_to(JobStateToProto(change->to));
    out.set_reason(change->reason);
    if (change->cause) *out.mutable_cause() = CauseToProto(*change->cause);
  } else if (const auto* step = std::get_if<StepDone>(&entry.what)) {
    v1::StepFinished& out = *proto.mutable_step_finished();
    *out.mutable_report() = StepReportToProto(step->report);
    out.set_slowest_rank(static_cast<int32_t>(step->slowest_rank.value()));
  } else if (const auto* note = std::get_if<CheckpointNote>(&entry.what)) {
    *proto.mutable_checkpoint() = CheckpointToProto(*note);
  } else if (const auto* verification = std::get_if<VerificationNote>(&entry.what)) {
    *proto.mutable_verification_done() = VerificationDoneToProto(*verification);
  } else {
    const auto& reason = std::get<ReasonChange>(entry.what);
    v1::ReasonChanged& out = *proto.mutable_reason_changed();
    out.set_reason(reason.reason);
    if (reason.pending) *out.mutable_pending() = PendingToProto(*reason.pending);
  }
  return proto;
}

v1::PlanSummary PlanSummaryToProto(const PlanSummary& summary) {
  v1::PlanSummary proto;
  proto.set_model_name(summary.model_name);
  proto.set_world_size(summary.world_size);
  proto.mutable_mesh()->set_dp_size(static_cast<int32_t>(summary.dp_size));
  proto.mutable_mesh()->set_ulysses_size(static_cast<int32_t>(summary.ulysses_size));
  proto.mutable_mesh()->set_ring_size(static_cast<int32_t>(summary.ring_size));
  proto.set_seq_len(summary.seq_len);
  proto.set_seq_len_local(summary.seq_len_local);
  proto.set_global_batch_size(summary.global_batch_size);
  proto.set_micro_batch_size(summary.micro_batch_size);
  proto.set_grad_accum_steps(summary.grad_accum_steps);
  proto.set_num_parameters(summary.num_parameters);
  proto.set_tokens_per_step(summary.tokens_per_step);
  proto.mutable_predicted_peak_bytes()->insert(summary.predicted_peak_bytes.begin(),
                                               summary.predicted_peak_bytes.end());
  for (const CollectiveTotals& totals : summary.collectives) {
    v1::PlannedCollective* out = proto.add_collectives();
    out->set_kind(totals.kind);
    out->set_phase(totals.phase);
    out->set_axis(totals.axis);
    out->set_calls(totals.calls);
    out->set_bytes_received_per_rank(totals.bytes_received_per_rank);
  }
  proto.mutable_shardings()->Assign(summary.shardings.begin(), summary.shardings.end());
  proto.mutable_warnings()->Assign(summary.warnings.begin(), summary.warnings.end());
  proto.mutable_links()->Assign(summary.links.begin(), summary.links.end());
  proto.set_ring_exchange(summary.ring_exchange);
  proto.set_zero_stage(summary.zero_stage);
  proto.set_recompute(summary.recompute);
  proto.set_tiling(summary.tiling);
  proto.set_offload(summary.offload);
  proto.set_model_flops(summary.model_flops);
  proto.set_flops_per_rank(summary.flops_per_rank);
  proto.set_attention_flops_per_rank(summary.attention_flops_per_rank);
  proto.set_peak_flops_per_second(summary.peak_flops_per_second);
  return proto;
}

v1::Node NodeToProto(const NodeView& node) {
  v1::Node proto;
  proto.set_node_id(node.node.value());
  proto.set_state(NodeStateToProto(node.state));
  proto.set_agent_address(node.agent_address);
  proto.set_agent_version(node.agent_version);
  proto.set_device_kind(node.device_kind == "cuda" ? v1::DEVICE_KIND_CUDA : v1::DEVICE_KIND_CPU);
  proto.set_num_devices(static_cast<int32_t>(node.num_devices));
  proto.set_num_devices_free(static_cast<int32_t>(node.num_devices_free));
  proto.set_device_memory_bytes(node.device_memory_bytes);
  if (HasCome(node.last_heartbeat)) {
    SetTime(node.last_heartbeat, *proto.mutable_last_heartbeat_time());
  }
  if (node.clock) {
    proto.mutable_clock()->set_ahead_seconds(absl::ToDoubleSeconds(node.clock->ahead));
    proto.mutable_clock()->set_uncertainty_seconds(absl::ToDoubleSeconds(node.clock->uncertainty));
  }
  for (const AttemptId& attempt : node.attempts) {
    v1::AttemptRef* out = proto.add_attempts();
    out->set_job_id(attempt.job.value());
    out->set_generation(attempt.generation.value());
  }
  return proto;
}

}  // namespace autosp
