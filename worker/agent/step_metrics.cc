#include "worker/agent/step_metrics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "worker/agent/metrics.h"

namespace autosp::agent {
namespace {

// What a rank says is not trusted to be a number that a counter can grow by.
double AtLeastZero(double value) { return std::isfinite(value) ? std::max(value, 0.0) : 0.0; }

void RecordMemory(const LabelValues& rank, const v1::StepReport& step, MetricRegistry& registry) {
  for (const v1::MemoryUse& use : step.memory()) {
    const LabelValues labels = {rank[0], rank[1], use.account()};
    registry.Set(kRankMemory, labels, static_cast<double>(use.current_bytes()));
    registry.Set(kRankMemoryPeak, labels, static_cast<double>(use.peak_bytes()));
  }
}

void RecordCollectives(const LabelValues& rank, const v1::StepReport& step,
                       MetricRegistry& registry) {
  for (const v1::CollectiveUse& use : step.collectives()) {
    const LabelValues labels = {rank[0], rank[1], use.kind(), use.phase()};
    registry.Increment(kRankCollectiveCallsTotal, labels,
                       AtLeastZero(static_cast<double>(use.calls())));
    registry.Increment(kRankCollectiveBytesTotal, labels,
                       AtLeastZero(static_cast<double>(use.bytes_received())));
    registry.Increment(kRankCollectiveSecondsTotal, labels, AtLeastZero(use.seconds()));
  }
}

}  // namespace

void DeclareCounters(MetricRegistry& registry) {
  for (const RankState state :
       {RankState::kFinished, RankState::kFailed, RankState::kLost, RankState::kStopped}) {
    registry.Declare(kRankEndsTotal, {std::string(ToString(state))});
  }
  for (const char* result : {"answered", "failed"}) registry.Declare(kHeartbeatsTotal, {result});
  registry.Declare(kLeaseLossesTotal, {});
  registry.Declare(kReportsDroppedTotal, {});
}

void RecordStep(const JobId& job_id, Rank rank, const v1::StepReport& step, absl::Time now,
                MetricRegistry& registry) {
  const LabelValues labels = {job_id.value(), absl::StrCat(rank.value())};
  registry.Set(kRankLastStep, labels, static_cast<double>(step.step()));
  registry.Set(kRankLastStepTime, labels, absl::ToDoubleSeconds(now - absl::UnixEpoch()));
  registry.Increment(kRankStepsTotal, labels);
  registry.Observe(kRankStepDuration, labels, AtLeastZero(step.step_seconds()));
  registry.Increment(kRankTokensTotal, labels, AtLeastZero(static_cast<double>(step.tokens())));
  registry.Set(kRankLoss, labels, step.loss());
  registry.Set(kRankLearningRate, labels, step.learning_rate());
  if (step.has_grad_norm()) registry.Set(kRankGradNorm, labels, step.grad_norm());
  if (step.has_validation_loss()) {
    registry.Set(kRankValidationLoss, labels, step.validation_loss());
  }
  RecordMemory(labels, step, registry);
  RecordCollectives(labels, step, registry);
}

void RecordTable(const AttemptTable& table, MetricRegistry& registry) {
  const int taken = table.NumDevicesTaken();
  registry.Set(kDevices, {"taken"}, taken);
  registry.Set(kDevices, {"free"}, table.num_devices() - taken);
  std::map<AttemptPhase, int> counts;
  for (const AttemptPhase phase :
       {AttemptPhase::kPreparing, AttemptPhase::kPrepared, AttemptPhase::kRunning,
        AttemptPhase::kStopping, AttemptPhase::kEnded}) {
    counts[phase] = 0;
  }
  for (const auto& [key, attempt] : table.attempts()) ++counts[attempt.phase];
  for (const auto& [phase, count] : counts) {
    registry.Set(kAttempts, {std::string(AttemptPhaseName(phase))}, count);
  }
}

}  // namespace autosp::agent
