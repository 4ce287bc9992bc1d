// What ranks say, through their agents.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/coordinator/coordinator.h"
#include "server/coordinator/count_noun.h"
#include "server/coordinator/failure.h"
#include "server/coordinator/step_merge.h"

namespace autosp {
namespace {

// Reports may come late and twice; a rank only moves forward through these.
int StageOf(RankState state) {
  if (HasEnded(state)) return 3;
  if (state == RankState::kRunning) return 2;
  return state == RankState::kSpawned ? 1 : 0;
}

}  // namespace

void Coordinator::On(const RanksReported& event) {
  absl::StatusOr<Agent*> agent = agents_.FindSpeaking(event.node, event.instance);
  decision_.status = agent.status();
  if (!agent.ok()) return;
  for (const RankReport& report : event.reports) {
    Job* job = FindCurrentOn(report.attempt, event.node);
    if (job == nullptr) continue;  // Old news. The next heartbeat says what is to be stopped.
    if (const auto* status = std::get_if<RankStatus>(&report.report)) {
      ApplyRankStatus(*job, event.node, *status);
    } else if (const auto* note = std::get_if<CheckpointNote>(&report.report)) {
      ApplyCheckpoint(*job, report.rank, *note);
    } else {
      ApplyStep(*job, report.rank, std::get<StepReport>(report.report));
    }
  }
}

// Requires: the attempt is current on the node.
void Coordinator::ApplyRankStatus(Job& job, const NodeId& node, const RankStatus& status) {
  Attempt& attempt = *job.attempt;
  const int64_t index = status.rank.value();
  if (index < 0 || index >= static_cast<int64_t>(attempt.ranks.size())) return;
  RankPart& rank = attempt.ranks[index];
  if (rank.node != node) return;
  if (!status.log_lines.empty()) {
    attempt.log_lines[index] = std::make_shared<const std::vector<std::string>>(status.log_lines);
  }
  if (StageOf(status.state) > StageOf(rank.state)) {
    rank.state = status.state;
    rank.pid = status.pid;
    attempt.last_progress = now_;
    Touch(job);
    if (HasEnded(status.state)) ApplyRankEnd(job, status);
    if (job.attempt) CheckAllRanks(job);
    return;
  }
  // The rank said that it failed; its log comes when its process has ended.
  if (job.cause && job.cause->rank == status.rank && status.exit &&
      !status.exit->log_lines.empty() && job.cause->log_lines != status.exit->log_lines) {
    job.cause->log_lines = status.exit->log_lines;
    Touch(job);
  }
}

void Coordinator::ApplyRankEnd(Job& job, const RankStatus& status) {
  if (status.state == RankState::kFinished) return ApplyRankFinish(job, status);
  FailureCause cause = RankCause(*job.attempt, status);
  // That it was told to stop is no cause.
  const bool is_told =
      status.state == RankState::kStopped &&
      (status.stop_reason.empty() || job.attempt->FindNode(cause.node)->is_unreachable);
  if (job.state != JobState::kStopping) {
    BeginStop(job, AttemptOutcome::kFault, std::move(cause));
  } else if (!is_told) {
    ImproveCause(job, std::move(cause));
  }
}

// Nothing more is to come of the rank. What it has not reported by now is lost (in a full queue of
// its agent, in a crash of the coordinator), and its steps are done without that.
void Coordinator::ApplyRankFinish(Job& job, const RankStatus& status) {
  RankPart& rank = job.attempt->ranks[status.rank.value()];
  // What an agent says is not trusted to be a step that the job has.
  const int64_t last_step = std::min(status.last_step, job.request->num_steps);
  rank.last_step = std::max(rank.last_step, last_step);
  job.outputs.insert(job.outputs.end(), status.outputs.begin(), status.outputs.end());
  job.attempt->verification = status.verification;
  TakeSteps(job);
}

void Coordinator::NoteEarlyFinish(Job& job, const NodeId& node, const RankStatus& status) {
  const std::vector<RankPart>& ranks = job.attempt->ranks;
  const int64_t index = status.rank.value();
  if (index < 0 || index >= std::ssize(ranks) || ranks[index].node != node) return;
  job.attempt->early_finishes[index] = {.pid = status.pid,
                                        .last_step = status.last_step,
                                        .outputs = status.outputs,
                                        .verification = status.verification};
}

// The agent of `node` is gone, and with it the reports that it had not sent.
void Coordinator::ApplyEarlyFinishes(Job& job, const NodeId& node) {
  for (const auto& [index, finish] : job.attempt->early_finishes) {
    ApplyRankStatus(job, node,
                    {.rank = Rank(index),
                     .state = RankState::kFinished,
                     .pid = finish.pid,
                     .last_step = finish.last_step,
                     .outputs = finish.outputs,
                     .verification = finish.verification});
  }
}

void Coordinator::ApplyStep(Job& job, Rank rank, const StepReport& report) {
  Attempt& attempt = *job.attempt;
  if (rank.value() < 0 || rank.value() >= static_cast<int64_t>(attempt.ranks.size())) return;
  if (!AddStepReport(attempt, rank, report)) return;
  attempt.last_progress = now_;
  attempt.has_stepped = true;
  TakeSteps(job);
}

// Rank 0 speaks for all. What it says is not trusted to be a step that the job has.
void Coordinator::ApplyCheckpoint(Job& job, Rank rank, const CheckpointNote& note) {
  if (rank.value() != 0 || note.step < 0 || note.step > job.request->num_steps) return;
  Attempt& attempt = *job.attempt;
  JobProgress& progress = job.progress;
  switch (note.event) {
    case CheckpointNote::Event::kSkipped:
      if (attempt.has_begun) return;
      break;
    case CheckpointNote::Event::kResumed:
      if (attempt.has_begun) return;
      Resume(job, note);
      break;
    case CheckpointNote::Event::kNotWritten:
      if (note.step <= attempt.checkpoint_noted) return;
      attempt.checkpoint_noted = note.step;
      ++progress.num_failed_checkpoints;
      break;
    case CheckpointNote::Event::kCommitted:
      if (note.step <= attempt.checkpoint_noted) return;
      attempt.checkpoint_noted = note.step;
      progress.checkpoint_step = note.step;
      progress.checkpoint_path = note.path;
      progress.num_failed_checkpoints = 0;
      if (note.step > job.restarts.best_checkpoint_step) {
        job.restarts.used = 0;
        job.restarts.best_checkpoint_step = note.step;
      }
      break;
  }
  attempt.last_progress = now_;
  Record(job, note);
}

// The steps after the checkpoint are done again.
void Coordinator::Resume(Job& job, const CheckpointNote& note) {
  Attempt& attempt = *job.attempt;
  attempt.has_begun = true;
  attempt.checkpoint_noted = note.step;
  for (RankPart& rank : attempt.ranks) rank.last_step = std::max(rank.last_step, note.step);
  job.progress.last_step = note.step;
  job.progress.tokens_total = note.step * job.request->tokens_per_step;
  job.progress.checkpoint_step = note.step;
  job.progress.checkpoint_path = note.path;
  if (note.step <= job.restarts.best_checkpoint_step) return;
  // It was committed, and the report of that was lost with the agent: the restart is the first
  // since that progress.
  job.restarts.used = std::min<int64_t>(job.restarts.used, 1);
  job.restarts.best_checkpoint_step = note.step;
}

void Coordinator::TakeSteps(Job& job) {
  for (StepDone& step : TakeFinishedSteps(*job.attempt)) {
    AddToProgress(step.report, now_, job.progress);
    Record(job, std::move(step));
  }
}

void Coordinator::CheckAllRanks(Job& job) {
  const auto& ranks = job.attempt->ranks;
  if (job.state == JobState::kStarting && job.attempt->is_committed) {
    const bool all_up = std::ranges::all_of(ranks, [](const RankPart& rank) {
      return rank.state == RankState::kRunning || rank.state == RankState::kFinished;
    });
    if (all_up) {
      job.attempt->last_progress = now_;
      job.num_failed_starts = 0;
      Move(job, JobTrigger::kAllRanksUp, absl::StrCat(CountNoun(std::ssize(ranks), "rank"), " up"));
    }
  }
  if (job.state != JobState::kRunning && job.state != JobState::kVerifying) return;
  const bool all_finished = std::ranges::all_of(
      ranks, [](const RankPart& rank) { return rank.state == RankState::kFinished; });
  if (!all_finished) return;
  job.state == JobState::kVerifying ? FinishVerification(job) : FinishRanks(job);
}

}  // namespace autosp
