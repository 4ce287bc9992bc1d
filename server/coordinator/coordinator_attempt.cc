// An attempt from the first prepare to the last process.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/agent_protocol.h"
#include "common/error_info.h"
#include "server/coordinator/coordinator.h"
#include "server/coordinator/count_noun.h"
#include "server/coordinator/failure.h"

namespace autosp {
namespace {

// Errors of an agent that another try may not meet: it is away, busy, or something of an earlier
// attempt is still in the way. All others (a file that cannot be read) would come again.
bool IsWorthRetry(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsResourceExhausted(status) || absl::IsAborted(status);
}

std::vector<RankAssignment> AssignmentsOf(const Attempt& attempt, const NodeId& node) {
  std::vector<RankAssignment> ranks;
  for (size_t i = 0; i < attempt.ranks.size(); ++i) {
    const RankPart& part = attempt.ranks[i];
    if (part.node != node) continue;
    ranks.push_back({.rank = Rank(static_cast<int64_t>(i)),
                     .local_rank = part.local_rank,
                     .device_index = part.device_index});
  }
  return ranks;
}

void SetAddresses(Attempt& attempt, const NodeId& node, const std::vector<RankAddress>& addresses) {
  for (const RankAddress& entry : addresses) {
    const int64_t index = entry.rank.value();
    const bool is_own = index < std::ssize(attempt.ranks) && attempt.ranks[index].node == node;
    if (is_own) attempt.ranks[index].address = entry.address;
  }
}

std::vector<std::string> AddressesOf(const Attempt& attempt) {
  std::vector<std::string> addresses;
  if (attempt.nodes.size() == 1) return addresses;
  for (const RankPart& rank : attempt.ranks) addresses.push_back(rank.address);
  return addresses;
}

}  // namespace

void Coordinator::StartAttempt(Job& job, AttemptKind kind, std::vector<RankPart> ranks) {
  job.generation = Generation(job.generation.value() + 1);
  // Of the attempt before; what it has written, this one writes again.
  job.cause.reset();
  job.outputs.clear();
  // What is known until rank 0 says where it goes on.
  if (job.restarts.total > 0) job.progress.last_step = job.progress.checkpoint_step;
  Attempt& attempt = job.attempt.emplace();
  attempt.generation = job.generation;
  attempt.kind = kind;
  attempt.ranks = std::move(ranks);
  job.NotePlace(job.generation, attempt.ranks);
  attempt.deadline = now_ + options_.prepare_timeout;
  std::vector<NodeId> node_of_rank;
  for (const RankPart& rank : attempt.ranks) {
    node_of_rank.push_back(rank.node);
    if (attempt.FindNode(rank.node) != nullptr) continue;
    attempt.nodes.push_back(
        {.node = rank.node, .agent_instance = agents_.Find(rank.node)->info.instance});
  }
  for (const NodePart& node : attempt.nodes) {
    decision_.effects.push_back(PrepareRanks{.attempt = {job.id, job.generation},
                                             .kind = kind,
                                             .is_first_training = !job.may_have_trained,
                                             .node = node.node,
                                             .address = agents_.Find(node.node)->info.address,
                                             .ranks = AssignmentsOf(attempt, node.node),
                                             .node_of_rank = node_of_rank});
  }
  if (kind == AttemptKind::kVerification) {
    return Move(job, JobTrigger::kVerifierReserved,
                absl::StrCat("attempt ", job.generation, " verifies the plan on ",
                             attempt.nodes.front().node));
  }
  Move(job, JobTrigger::kDevicesReserved,
       absl::StrCat("attempt ", job.generation, " prepares ",
                    CountNoun(std::ssize(attempt.ranks), "rank"), " on ",
                    absl::StrJoin(attempt.nodes, ", ", [](std::string* out, const NodePart& n) {
                      absl::StrAppend(out, n.node);
                    })));
}

void Coordinator::On(const CommandDone& event) {
  Job* job = FindCurrent(event.attempt);
  NodePart* node = job == nullptr ? nullptr : job->attempt->FindNode(event.node);
  if (node == nullptr || node->phase == NodePhase::kEnded) return;
  switch (event.command) {
    case AgentCommand::kPrepare:
      return OnPrepareDone(*job, *node, event);
    case AgentCommand::kCommit:
      return OnCommitDone(*job, *node, event.status);
    case AgentCommand::kAbort:
    case AgentCommand::kStop:
      return OnStopDone(*job, *node, event.command, event.status);
  }
}

void Coordinator::OnPrepareDone(Job& job, NodePart& node, const CommandDone& event) {
  if (job.state == JobState::kStopping || node.phase != NodePhase::kPreparing) return;
  if (!event.status.ok()) return FailStart(job, node.node, event.status);
  SetAddresses(*job.attempt, node.node, event.rank_addresses);
  node.phase = NodePhase::kPrepared;
  const Agent* agent = agents_.Find(node.node);
  node.absence_counts_after = agent->last_answer_token;
  Touch(job);
  const bool all_prepared = std::ranges::all_of(
      job.attempt->nodes, [](const NodePart& n) { return n.phase == NodePhase::kPrepared; });
  if (all_prepared) CommitAttempt(job);
}

void Coordinator::CommitAttempt(Job& job) {
  Attempt& attempt = *job.attempt;
  attempt.is_committed = true;
  if (attempt.kind == AttemptKind::kTraining) job.may_have_trained = true;
  attempt.deadline = now_ + PatienceOf(attempt);
  for (NodePart& node : attempt.nodes) node.phase = NodePhase::kCommitting;
  Touch(job);
  SendCommits(job);
}

void Coordinator::SendCommits(Job& job) {
  for (const NodePart& node : job.attempt->nodes) {
    const Agent* agent = agents_.FindLive(node.node);
    if (node.phase != NodePhase::kCommitting || agent == nullptr || !node.is_attached) continue;
    decision_.effects.push_back(CommandAttempt{.command = AgentCommand::kCommit,
                                               .attempt = {job.id, job.generation},
                                               .node = node.node,
                                               .address = agent->info.address,
                                               .rank_addresses = AddressesOf(*job.attempt)});
  }
  job.attempt->resend_at = now_ + options_.resend_interval;
}

void Coordinator::OnCommitDone(Job& job, NodePart& node, const absl::Status& status) {
  if (job.state == JobState::kStopping || node.phase != NodePhase::kCommitting) return;
  if (status.ok()) {
    node.phase = NodePhase::kCommitted;
    Touch(job);
    return;
  }
  // The commit may have worked and only its answer be lost: it is sent again until ranks come up or
  // patience ends.
  if (IsWorthRetry(status)) return;
  FailStart(job, node.node, status);
}

void Coordinator::FailStart(Job& job, const NodeId& node, const absl::Status& status) {
  FailureCause cause = StartCause(*job.attempt, node, status.message());
  cause.status_code = static_cast<int64_t>(status.code());
  const bool again = IsWorthRetry(status);
  // That a node is taken out of use is not the job's fault.
  const bool is_ending = GetErrorInfo(status).reason == kReasonAgentEnding;
  if (Agent* agent = agents_.Find(node); is_ending && agent != nullptr) agent->is_ending = true;
  if (again && !is_ending) ++job.num_failed_starts;
  BeginStop(job, again ? AttemptOutcome::kRetryStart : AttemptOutcome::kFault, std::move(cause));
}

void Coordinator::OnStopDone(Job& job, NodePart& node, AgentCommand command,
                             const absl::Status& status) {
  if (job.state != JobState::kStopping) return;
  // An abort of what was never committed is complete when it is answered; a stop has only begun.
  const bool is_aborted =
      command == AgentCommand::kAbort && !job.attempt->is_committed && status.ok();
  if (!is_aborted && !absl::IsNotFound(status)) return NoteReach(node, status);
  EndNode(job, node, RankState::kStopped);
  EndAttemptIfGone(job);
}

// Requires: the job is being stopped. What an agent that cannot be called holds is known from its
// lists, also whether a prepare has reached it.
void Coordinator::NoteReach(NodePart& node, const absl::Status& status) {
  const Agent* agent = agents_.FindLive(node.node);
  const bool is_first = !status.ok() && !node.is_unreachable;
  node.is_unreachable = !status.ok();
  if (!is_first || agent == nullptr || node.phase != NodePhase::kPreparing) return;
  node.absence_counts_after = agent->last_answer_token;
}

// Requires: the job is verifying, starting or running.
void Coordinator::BeginStop(Job& job, AttemptOutcome outcome, FailureCause cause) {
  cause.time = now_;
  if (job.attempt->kind == AttemptKind::kVerification && outcome != AttemptOutcome::kCancelled &&
      cause.kind != FailureCause::Kind::kPlanDiffers) {
    NoteVerification(job, {.outcome = VerificationNote::Outcome::kNoResult});
    // Nothing was trained: no restart of the job's budget, but another try to start it.
    if (outcome == AttemptOutcome::kFault && IsWorthRestart(cause)) {
      outcome = AttemptOutcome::kRetryStart;
      ++job.num_failed_starts;
    }
  }
  job.attempt->outcome = outcome;
  job.attempt->deadline = absl::InfiniteFuture();
  job.cause = cause;
  JobTrigger trigger = JobTrigger::kFaultFound;
  if (outcome == AttemptOutcome::kCancelled) trigger = JobTrigger::kCancelRequested;
  if (outcome == AttemptOutcome::kRetryStart) trigger = JobTrigger::kStartFailed;
  Move(job, trigger, cause.message);
  SendStops(job);
  EndAttemptIfGone(job);
}

// Requires: the job is running. The ranks have done their work; what is left of their processes is
// ended like that of any attempt.
void Coordinator::FinishRanks(Job& job) {
  job.attempt->outcome = AttemptOutcome::kFinished;
  // The reports of the last steps may be lost; that the steps are done is known all the same.
  const auto& ranks = job.attempt->ranks;
  const int64_t last_step = std::ranges::min_element(ranks, {}, &RankPart::last_step)->last_step;
  job.progress.last_step = std::max(job.progress.last_step, last_step);
  Move(job, JobTrigger::kAllRanksFinished,
       absl::StrCat(CountNoun(std::ssize(job.attempt->ranks), "rank"), " finished, last step ",
                    job.progress.last_step));
  // They are about to exit by themselves. Only those that do not are stopped, by the resend.
  job.attempt->resend_at = now_ + options_.stop_grace;
  EndAttemptIfGone(job);
}

void Coordinator::SendStops(Job& job) {
  const Attempt& attempt = *job.attempt;
  for (const NodePart& node : attempt.nodes) {
    const Agent* agent = agents_.FindLive(node.node);
    if (node.phase == NodePhase::kEnded || agent == nullptr) continue;
    CommandAttempt command{.command = AgentCommand::kStop,
                           .attempt = {job.id, attempt.generation},
                           .node = node.node,
                           .address = agent->info.address,
                           .grace = options_.stop_grace,
                           .reason = job.reason};
    if (!attempt.is_committed) command.command = AgentCommand::kAbort;
    decision_.effects.push_back(std::move(command));
  }
  job.attempt->resend_at = now_ + options_.resend_interval;
}

void Coordinator::EndNode(Job& job, NodePart& node, RankState rank_state) {
  node.phase = NodePhase::kEnded;
  node.is_attached = true;  // There is nothing left to wait for.
  for (RankPart& rank : job.attempt->ranks) {
    if (rank.node == node.node && !HasEnded(rank.state)) rank.state = rank_state;
  }
  Touch(job);
}

void Coordinator::EndAttemptIfGone(Job& job) {
  if (job.state != JobState::kStopping || !job.attempt->IsGone()) return;
  const AttemptOutcome outcome = job.attempt->outcome;
  const bool is_verification = job.attempt->kind == AttemptKind::kVerification;
  const bool may_restart = MayRestart(job);
  job.last_ranks = job.attempt->ranks;
  job.attempt.reset();
  const std::string why = job.cause ? job.cause->message : "";
  switch (outcome) {
    case AttemptOutcome::kRetryStart:
      if (job.num_failed_starts < options_.max_failed_starts) {
        job.retry_at = now_ + options_.retry_delay;
        return Move(job, JobTrigger::kStoppedToRetry, why);
      }
      return Move(
          job, JobTrigger::kStoppedAfterFault,
          absl::StrCat(job.num_failed_starts, " attempts to ",
                       is_verification ? "verify the plan" : "start", " failed; the last: ", why));
    case AttemptOutcome::kFinished:
      if (is_verification) return EndVerification(job);
      return Move(job, JobTrigger::kStoppedAfterFinish,
                  absl::StrCat("finished ", CountNoun(job.progress.last_step, "step")));
    case AttemptOutcome::kCancelled:
      return Move(job, JobTrigger::kStoppedAfterCancel, why);
    case AttemptOutcome::kFault:
    case AttemptOutcome::kUndecided:
      return may_restart ? Restart(job) : EndFault(job);
  }
}

void Coordinator::Restart(Job& job) {
  ++job.restarts.used;
  ++job.restarts.total;
  job.restarts.last_reason = job.cause->message;
  job.retry_at = now_ + options_.retry_delay;
  Move(job, JobTrigger::kStoppedToRetry,
       absl::StrCat("restart ", job.restarts.used, " of ", job.request->max_restarts, ": ",
                    job.cause->message));
}

void Coordinator::EndFault(Job& job) {
  const std::string why = job.cause ? job.cause->message : "";
  const bool is_spent = job.restarts.used > 0 && job.cause && IsWorthRestart(*job.cause);
  Move(job, JobTrigger::kStoppedAfterFault,
       is_spent ? absl::StrCat(CountNoun(job.restarts.used, "restart"),
                               " without a new checkpoint; the last fault: ", why)
                : why);
}

std::string Coordinator::MissingRanks(const Attempt& attempt) const {
  std::vector<std::string> missing;
  for (size_t i = 0; i < attempt.ranks.size(); ++i) {
    if (attempt.ranks[i].state == RankState::kPrepared ||
        attempt.ranks[i].state == RankState::kSpawned) {
      missing.push_back(absl::StrCat("rank ", i, " (", ToString(attempt.ranks[i].state), ")"));
    }
  }
  return absl::StrJoin(missing, ", ");
}

// Requires: the job has an attempt.
void Coordinator::CheckPatience(Job& job) {
  CheckReattached(job);
  if (!job.attempt) return;
  const bool is_whole = job.attempt->IsAttached();
  if (job.state == JobState::kStopping) {
    if (now_ >= job.attempt->resend_at) SendStops(job);
  } else if (job.state == JobState::kStarting || job.state == JobState::kVerifying) {
    CheckStarting(job);
  } else if (job.state == JobState::kRunning && is_whole) {
    CheckHung(job);
  }
}

void Coordinator::CheckReattached(Job& job) {
  if (job.attempt->IsAttached()) return;
  if (job.state != JobState::kStopping && !job.attempt->is_committed) {
    // No process exists yet, so nothing is lost by beginning again. It is not the job's fault and
    // does not count.
    BeginStop(job, AttemptOutcome::kRetryStart,
              StartCause(*job.attempt, job.attempt->nodes.front().node,
                         "the coordinator restarted while it was prepared"));
    if (!job.attempt) return;
  }
  if (now_ < started_at_ + options_.lease + options_.reattach_margin) return;
  // Agents that are still away have not been able to renew their lease: their ranks are stopped.
  std::vector<NodeId> away;
  for (const NodePart& node : job.attempt->nodes) {
    if (!node.is_attached) away.push_back(node.node);
  }
  for (const NodeId& node : away) {
    if (!job.attempt) return;
    LoseNode(job, *job.attempt->FindNode(node), FailureCause::Kind::kNotReattached,
             absl::StrCat("its agent did not come back within ",
                          absl::FormatDuration(options_.lease + options_.reattach_margin),
                          " of the coordinator's start"));
  }
}

void Coordinator::CheckStarting(Job& job) {
  Attempt& attempt = *job.attempt;
  if (now_ >= attempt.deadline) {
    auto slow = std::ranges::find_if(attempt.nodes, [](const NodePart& n) {
      return n.phase == NodePhase::kPreparing || n.phase == NodePhase::kCommitting;
    });
    const NodeId node = slow == attempt.nodes.end() ? attempt.nodes.front().node : slow->node;
    if (attempt.is_committed) {
      return BeginStop(job, AttemptOutcome::kFault, LateCause(attempt, node));
    }
    return FailStart(
        job, node,
        absl::DeadlineExceededError(absl::StrCat(
            "it has not prepared in time (", absl::FormatDuration(options_.prepare_timeout), ")")));
  }
  if (attempt.is_committed && now_ >= attempt.resend_at) SendCommits(job);
}

absl::Duration Coordinator::PatienceOf(const Attempt& attempt) const {
  return attempt.kind == AttemptKind::kVerification ? options_.verify_timeout
                                                    : options_.join_timeout;
}

// Requires: the attempt is committed, and its patience has ended.
FailureCause Coordinator::LateCause(const Attempt& attempt, const NodeId& node) const {
  const std::string patience = absl::FormatDuration(PatienceOf(attempt));
  if (attempt.kind == AttemptKind::kTraining) {
    return StartCause(attempt, node,
                      absl::StrCat("not up in time (", patience, "): ", MissingRanks(attempt)));
  }
  FailureCause cause = StartCause(attempt, node, "");
  // It would take as long again.
  cause.status_code = static_cast<int64_t>(absl::StatusCode::kDeadlineExceeded);
  cause.message = absl::StrCat("the verification of the plan on node ", node,
                               " has not ended within ", patience,
                               "; set verify to never, and verify an export with fewer layers with "
                               "`autosp-cli verify`");
  return cause;
}

// Steps of a long sequence may take hours, and before the first one it is the plan that says so.
absl::Duration Coordinator::PatienceWith(const Job& job) const {
  const JobRequest& request = *job.request;
  const double flops_per_second =
      request.peak_flops_per_second * static_cast<double>(request.world_size);
  const double at_peak = flops_per_second > 0 ? request.model_flops / flops_per_second : 0;
  const absl::Duration steps =
      absl::Seconds(std::max(job.progress.step_seconds, at_peak)) * options_.hang_factor;
  const bool is_stepping = job.attempt->has_stepped && job.progress.last_step < request.num_steps;
  return std::max(is_stepping ? options_.hang_timeout : options_.setup_timeout, steps);
}

void Coordinator::CheckHung(Job& job) {
  const absl::Duration silence = now_ - job.attempt->last_progress;
  if (silence < PatienceWith(job)) return;
  BeginStop(job, AttemptOutcome::kFault, HungCause(*job.attempt, silence));
}

}  // namespace autosp
