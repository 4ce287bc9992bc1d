#include "server/service/metrics_recorder.h"

#include "server/metrics.h"
#include "server/service/limits.h"
#include "server/service/node_view.h"

namespace autosp {

// What an alert watches exists from the start.
MetricsRecorder::MetricsRecorder(MetricRegistry& registry) : registry_(registry) {
  for (const JobEdge& edge : JobEdges()) {
    registry_.Declare(kJobTransitionsTotal,
                      {std::string(ToString(edge.from)), std::string(ToString(edge.to))});
  }
  for (const FailureCause::Kind kind :
       {FailureCause::Kind::kRankLost, FailureCause::Kind::kRankFailed,
        FailureCause::Kind::kAgentLost, FailureCause::Kind::kHung, FailureCause::Kind::kStartFailed,
        FailureCause::Kind::kNotReattached, FailureCause::Kind::kPlanDiffers}) {
    registry_.Declare(kJobFaultsTotal, {std::string(ToString(kind))});
  }
  for (const VerificationNote::Outcome outcome :
       {VerificationNote::Outcome::kEqual, VerificationNote::Outcome::kDiffers,
        VerificationNote::Outcome::kNoResult, VerificationNote::Outcome::kKnown}) {
    registry_.Declare(kVerificationsTotal, {std::string(ToString(outcome))});
  }
  for (const char* result : {"ok", "failed"}) registry_.Declare(kStoreWriteDuration, {result});
}

void MetricsRecorder::Record(const Decision& decision, absl::Time now) {
  for (const HistoryEntry& entry : decision.history) RecordEntry(entry, now);
  for (const Job& job : decision.changed_jobs) {
    for (const auto& [account, bytes] : job.progress.peak_bytes) {
      registry_.Set(kJobMemoryPeak, {job.id.value(), account}, static_cast<double>(bytes));
    }
    registry_.Set(kJobRestarts, {job.id.value()}, static_cast<double>(job.restarts.total));
    registry_.Set(kJobCheckpointStep, {job.id.value()},
                  static_cast<double>(job.progress.checkpoint_step));
    RecordFlops(job);
  }
}

void MetricsRecorder::RecordFlops(const Job& job) {
  const double seconds = job.progress.step_seconds;
  if (job.request == nullptr || job.request->model_flops <= 0 || seconds <= 0) return;
  const double per_second = job.request->model_flops / seconds;
  registry_.Set(kJobModelFlops, {job.id.value()}, per_second);
  const double peak =
      job.request->peak_flops_per_second * static_cast<double>(job.request->world_size);
  if (peak > 0) registry_.Set(kJobModelFlopsUtilization, {job.id.value()}, per_second / peak);
}

void MetricsRecorder::RecordEntry(const HistoryEntry& entry, absl::Time now) {
  if (const auto* step = std::get_if<StepDone>(&entry.what)) {
    return RecordStep(entry.job.value(), step->report);
  }
  if (const auto* note = std::get_if<CheckpointNote>(&entry.what)) {
    registry_.Increment(kJobCheckpointsTotal,
                        {entry.job.value(), std::string(ToString(note->event))});
    if (note->event == CheckpointNote::Event::kCommitted) {
      registry_.Set(kJobCheckpointSeconds, {entry.job.value()}, note->seconds);
    }
    return;
  }
  if (const auto* note = std::get_if<VerificationNote>(&entry.what)) {
    registry_.Increment(kVerificationsTotal, {std::string(ToString(note->outcome))});
    if (note->has_result()) registry_.Observe(kVerificationSeconds, {}, note->result.seconds);
    return;
  }
  const auto* change = std::get_if<StateChange>(&entry.what);
  if (change == nullptr) return;
  const std::string from(change->from ? ToString(*change->from) : "none");
  registry_.Increment(kJobTransitionsTotal, {from, std::string(ToString(change->to))});
  if (change->to == JobState::kFailed && change->cause) {
    registry_.Increment(kJobFaultsTotal, {std::string(ToString(change->cause->kind))});
  }
  if (!IsTerminal(change->to)) return;
  registry_.Set(kJobRunning, {entry.job.value()}, 0);
  ended_.emplace_back(now, entry.job.value());
}

void MetricsRecorder::RecordStep(const std::string& job, const StepReport& report) {
  registry_.Set(kJobLastStep, {job}, static_cast<double>(report.step));
  registry_.Increment(kJobStepsTotal, {job});
  registry_.Observe(kJobStepDuration, {job}, report.step_seconds);
  registry_.Increment(kJobTokensTotal, {job}, static_cast<double>(report.tokens));
  if (report.step_seconds > 0) {
    registry_.Set(kJobTokensPerSecond, {job},
                  static_cast<double>(report.tokens) / report.step_seconds);
  }
  registry_.Set(kJobLoss, {job}, report.loss);
  if (report.validation_loss) registry_.Set(kJobValidationLoss, {job}, *report.validation_loss);
  for (const ReportedMemory& use : report.memory) {
    registry_.Set(kJobMemory, {job, use.account}, static_cast<double>(use.current_bytes));
  }
  for (const ReportedCollective& use : report.collectives) {
    registry_.Increment(kJobCollectiveBytesTotal, {job, use.kind, use.phase},
                        static_cast<double>(use.bytes_received));
    registry_.Increment(kJobCollectiveSecondsTotal, {job, use.kind, use.phase}, use.seconds);
  }
}

void MetricsRecorder::RecordState(const Coordinator& coordinator) {
  std::map<JobState, int64_t> jobs;
  for (const auto& [id, job] : coordinator.jobs()) {
    ++jobs[job.state];
    if (IsTerminal(job.state)) continue;  // Its series are on their way out.
    registry_.Set(kJobRunning, {id.value()}, job.state == JobState::kRunning ? 1 : 0);
  }
  for (JobState state : kAllJobStates) {
    if (IsTerminal(state)) continue;
    registry_.Set(kJobs, {std::string(ToString(state))}, static_cast<double>(jobs[state]));
  }
  std::map<NodeView::State, int64_t> nodes;
  int64_t num_free = 0;
  int64_t num_devices = 0;
  for (const NodeView& node : ViewNodes(coordinator)) {
    ++nodes[node.state];
    num_free += node.num_devices_free;
    if (node.state == NodeView::State::kReady || node.state == NodeView::State::kSuspect) {
      num_devices += node.num_devices;
    }
  }
  for (NodeView::State state : kAllNodeStates) {
    registry_.Set(kNodes, {std::string(ToString(state))}, static_cast<double>(nodes[state]));
  }
  registry_.Set(kDevices, {"free"}, static_cast<double>(num_free));
  registry_.Set(kDevices, {"taken"}, static_cast<double>(num_devices - num_free));
}

void MetricsRecorder::RecordPrediction(const JobId& job,
                                       const std::map<std::string, int64_t>& peak_bytes) {
  for (const auto& [account, bytes] : peak_bytes) {
    registry_.Set(kJobMemoryPredicted, {job.value(), account}, static_cast<double>(bytes));
  }
}

void MetricsRecorder::RecordWrite(bool is_ok, absl::Duration duration) {
  registry_.Observe(kStoreWriteDuration, {is_ok ? "ok" : "failed"},
                    absl::ToDoubleSeconds(duration));
}

void MetricsRecorder::Prune(absl::Time now) {
  while (!ended_.empty() && ended_.front().first + kMetricsRetention <= now) {
    registry_.RemoveSeries("job_id", ended_.front().second);
    ended_.pop_front();
  }
}

}  // namespace autosp
