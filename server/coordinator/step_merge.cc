#include "server/coordinator/step_merge.h"

#include <algorithm>

#include "common/agent_protocol.h"

namespace autosp {
namespace {

// Ranks of one job run in lock step, but after a time without the coordinator one agent may hand in
// all that it has queued before another one does. More open steps than an agent keeps, in its queue
// and on the way, mean that reports are lost.
constexpr size_t kMaxOpenSteps = kMaxQueuedSteps + kMaxReportsInBatch;

void MergeMemory(const std::vector<ReportedMemory>& from, std::vector<ReportedMemory>& into) {
  for (const ReportedMemory& use : from) {
    auto known = std::ranges::find(into, use.account, &ReportedMemory::account);
    if (known == into.end()) {
      into.push_back(use);
      continue;
    }
    known->current_bytes = std::max(known->current_bytes, use.current_bytes);
    known->peak_bytes = std::max(known->peak_bytes, use.peak_bytes);
  }
}

void MergeCollectives(const std::vector<ReportedCollective>& from,
                      std::vector<ReportedCollective>& into) {
  for (const ReportedCollective& use : from) {
    auto known = std::ranges::find_if(into, [&](const ReportedCollective& other) {
      return other.kind == use.kind && other.phase == use.phase;
    });
    if (known == into.end()) {
      into.push_back(use);
      continue;
    }
    known->calls = std::max(known->calls, use.calls);
    known->bytes_received = std::max(known->bytes_received, use.bytes_received);
    known->seconds = std::max(known->seconds, use.seconds);
  }
}

// Loss, tokens and norms are of the whole job and the same on every rank; what differs between
// ranks is the time, the memory and the traffic, of which the highest counts.
void Merge(const StepReport& report, int64_t rank, Attempt::OpenStep& step) {
  if (step.num_reports++ == 0) {
    step.merged = report;
    step.slowest_rank = rank;
    return;
  }
  if (report.step_seconds > step.merged.step_seconds) {
    step.merged.step_seconds = report.step_seconds;
    step.slowest_rank = rank;
  }
  if (rank == 0) step.merged.loss = report.loss;
  if (!step.merged.grad_norm) step.merged.grad_norm = report.grad_norm;
  if (!step.merged.validation_loss) step.merged.validation_loss = report.validation_loss;
  MergeMemory(report.memory, step.merged.memory);
  MergeCollectives(report.collectives, step.merged.collectives);
}

}  // namespace

bool AddStepReport(Attempt& attempt, Rank rank, const StepReport& report) {
  RankPart& part = attempt.ranks[rank.value()];
  if (report.step <= part.last_step) return false;
  part.last_step = report.step;
  Merge(report, rank.value(), attempt.open_steps[report.step]);
  if (attempt.open_steps.size() > kMaxOpenSteps) {
    attempt.open_steps.erase(attempt.open_steps.begin());
  }
  return true;
}

std::vector<StepDone> TakeFinishedSteps(Attempt& attempt) {
  const int64_t finished =
      std::ranges::min_element(attempt.ranks, {}, &RankPart::last_step)->last_step;
  std::vector<StepDone> steps;
  while (!attempt.open_steps.empty() && attempt.open_steps.begin()->first <= finished) {
    auto& [number, step] = *attempt.open_steps.begin();
    steps.push_back({.report = step.merged, .slowest_rank = Rank(step.slowest_rank)});
    attempt.open_steps.erase(attempt.open_steps.begin());
  }
  return steps;
}

void AddToProgress(const StepReport& report, absl::Time now, JobProgress& progress) {
  const bool is_first = progress.last_step == 0 || progress.last_step_time == absl::InfinitePast();
  if (is_first) progress.first_loss = report.loss;
  progress.last_step = report.step;
  progress.last_loss = report.loss;
  if (report.validation_loss) progress.last_validation_loss = report.validation_loss;
  progress.step_seconds = report.step_seconds;
  progress.tokens_of_last_step = report.tokens;
  progress.tokens_total += report.tokens;
  progress.last_step_time = now;
  for (const ReportedMemory& use : report.memory) {
    int64_t& peak = progress.peak_bytes[use.account];
    peak = std::max(peak, use.peak_bytes);
  }
}

}  // namespace autosp
