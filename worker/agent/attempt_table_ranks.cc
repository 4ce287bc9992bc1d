// What processes and ranks do, and how the end of one is judged.

#include <signal.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/agent/agent_errors.h"
#include "worker/agent/attempt_table.h"

namespace autosp::agent {
namespace {

// A rank that was only asked to end does so by itself, or of that signal. Any other signal came
// from elsewhere and may be why we asked at all: a process that is killed closes its connections,
// and its peers tell of it, before it can be seen to have ended.
bool IsEndOurDoing(const RankRecord& rank) {
  if (!rank.was_signalled) return false;
  const int signal_number = rank.exit->signal_number;
  return rank.was_killed || signal_number == 0 || signal_number == SIGTERM;
}

}  // namespace

bool AttemptTable::ShouldStart(const AttemptKey& key, Rank rank) const {
  const Attempt* attempt = Find(key);
  if (attempt == nullptr || attempt->phase != AttemptPhase::kRunning) return false;
  const RankRecord* record = attempt->FindRank(rank);
  return record != nullptr && record->state == RankState::kPrepared && !record->is_starting;
}

void AttemptTable::BeginStart(const AttemptKey& key, Rank rank) {
  AUTOSP_CHECK(ShouldStart(key, rank), key.ToString(), " rank ", rank.value());
  FindRank(key, rank)->is_starting = true;
}

bool AttemptTable::IsStarting(const AttemptKey& key, Rank rank) const {
  const Attempt* attempt = Find(key);
  const RankRecord* record = attempt == nullptr ? nullptr : attempt->FindRank(rank);
  return record != nullptr && record->is_starting;
}

void AttemptTable::Started(const AttemptKey& key, Rank rank, int64_t pid, absl::Duration now,
                           Effects& effects) {
  RankRecord* record = FindRank(key, rank);
  AUTOSP_CHECK(record != nullptr && record->is_starting, key.ToString(), " rank ", rank.value(),
               " was started without need");
  record->is_starting = false;
  record->state = *NextRankState(record->state, RankEvent::kSpawned);
  record->pid = pid;
  record->has_process = true;
  record->is_log_open = true;
  record->last_sign_at = now;
  effects.push_back(ReportRank{key, rank});
  if (record->is_unwanted) effects.push_back(SignalRank{key, rank, SIGKILL});
}

void AttemptTable::NotStarted(const AttemptKey& key, Rank rank, const absl::Status& error,
                              absl::Duration now, Effects& effects) {
  Attempt* attempt = FindMutable(key);
  RankRecord* record = FindRank(key, rank);
  AUTOSP_CHECK(record != nullptr && record->is_starting, key.ToString(), " rank ", rank.value(),
               " was started without need");
  record->is_starting = false;
  record->is_settled = true;
  if (record->is_unwanted) {
    record->state = *NextRankState(record->state, RankEvent::kGoneOnRequest);
    effects.push_back(ReportRank{key, rank});
    EndIfSettled(*attempt, effects);
    return;
  }
  record->state = *NextRankState(record->state, RankEvent::kFailed);
  record->failure = RankFailureInfo{.code = error.code(), .message = std::string(error.message())};
  effects.push_back(ReportRank{key, rank});
  StopOthersAfter(*attempt, *record, now, effects);
  EndIfSettled(*attempt, effects);
}

void AttemptTable::Signalled(const AttemptKey& key, Rank rank, int signal_number) {
  RankRecord* record = FindRank(key, rank);
  if (record == nullptr) return;
  record->was_signalled = true;
  record->was_killed |= signal_number == SIGKILL;
}

void AttemptTable::ProcessEnded(const AttemptKey& key, Rank rank, const ProcessExit& exit,
                                absl::Duration now, Effects& effects) {
  Attempt* attempt = FindMutable(key);
  RankRecord* record = FindRank(key, rank);
  if (record == nullptr || !record->has_process) return;
  record->has_process = false;
  record->exit = exit;
  record->judge_at = now + kLastWordsTimeout;
  Settle(*attempt, *record, now, effects);
}

void AttemptTable::LogClosed(const AttemptKey& key, Rank rank, absl::Duration now,
                             Effects& effects) {
  RankRecord* record = FindRank(key, rank);
  if (record == nullptr) return;
  record->is_log_open = false;
  Settle(*FindMutable(key), *record, now, effects);
}

absl::StatusOr<RankRecord*> AttemptTable::FindSpeaker(const AttemptKey& key, Rank rank) {
  RETURN_IF_ERROR(CheckGeneration(key));
  RankRecord* record = FindRank(key, rank);
  if (record == nullptr) {
    return NotFound("rank ", rank.value(), " of ", key.ToString(), " does not run on node ",
                    node_id_.value());
  }
  return record;
}

absl::Status AttemptTable::Hello(const AttemptKey& key, Rank rank, int64_t pid, absl::Duration now,
                                 Effects& effects) {
  ASSIGN_OR_RETURN(RankRecord * record, FindSpeaker(key, rank));
  if (pid != record->pid) {
    return PermissionDenied("pid ", pid, " says that it is rank ", rank.value(), " of ",
                            key.ToString(), ", but that is pid ", record->pid);
  }
  ASSIGN_OR_RETURN(record->state, NextRankState(record->state, RankEvent::kHello));
  record->is_stream_open = true;
  record->last_sign_at = now;
  effects.push_back(ReportRank{key, rank});
  return absl::OkStatus();
}

absl::Status AttemptTable::StepDone(const AttemptKey& key, Rank rank, int64_t step,
                                    absl::Duration now) {
  ASSIGN_OR_RETURN(RankRecord * record, FindSpeaker(key, rank));
  if (record->state != RankState::kRunning) {
    return FailedPrecondition("a step of rank ", rank.value(), ", which is ",
                              ToString(record->state));
  }
  if (step <= record->last_step) {
    return InvalidArgument("step ", step, " of rank ", rank.value(), " follows step ",
                           record->last_step, "; steps must grow");
  }
  record->last_step = step;
  record->last_sign_at = now;
  return absl::OkStatus();
}

absl::Status AttemptTable::ShowedSign(const AttemptKey& key, Rank rank, absl::Duration now) {
  ASSIGN_OR_RETURN(RankRecord * record, FindSpeaker(key, rank));
  record->last_sign_at = now;
  return absl::OkStatus();
}

absl::Status AttemptTable::Finished(const AttemptKey& key, Rank rank, RankResult result,
                                    absl::Duration now, Effects& effects) {
  ASSIGN_OR_RETURN(RankRecord * record, FindSpeaker(key, rank));
  ASSIGN_OR_RETURN(record->state, NextRankState(record->state, RankEvent::kFinished));
  record->result = std::move(result);
  record->last_sign_at = now;
  record->kill_at = std::min(record->kill_at, now + kExitAfterFinished);
  effects.push_back(ReportRank{key, rank});
  return absl::OkStatus();
}

absl::Status AttemptTable::Failed(const AttemptKey& key, Rank rank, RankFailureInfo failure,
                                  absl::Duration now, Effects& effects) {
  ASSIGN_OR_RETURN(RankRecord * record, FindSpeaker(key, rank));
  record->last_sign_at = now;
  // What a rank says after we have asked it to end is no cause of anything.
  if (record->was_signalled) return absl::OkStatus();
  ASSIGN_OR_RETURN(record->state, NextRankState(record->state, RankEvent::kFailed));
  record->failure = std::move(failure);
  record->kill_at = std::min(record->kill_at, now + kExitAfterFailed);
  effects.push_back(ReportRank{key, rank});
  StopOthersAfter(*FindMutable(key), *record, now, effects);
  return absl::OkStatus();
}

void AttemptTable::StreamClosed(const AttemptKey& key, Rank rank, absl::Duration now,
                                Effects& effects) {
  RankRecord* record = FindRank(key, rank);
  if (record == nullptr) return;
  record->is_stream_open = false;
  Settle(*FindMutable(key), *record, now, effects);
}

void AttemptTable::Settle(Attempt& attempt, RankRecord& rank, absl::Duration now,
                          Effects& effects) {
  if (rank.is_settled || !rank.exit.has_value()) return;
  if ((rank.is_stream_open || rank.is_log_open) && now < rank.judge_at) return;
  rank.is_settled = true;
  if (!HasEnded(rank.state)) {
    rank.state = *NextRankState(
        rank.state, IsEndOurDoing(rank) ? RankEvent::kGoneOnRequest : RankEvent::kGoneByItself);
  }
  effects.push_back(ReportRank{attempt.key, rank.slot.rank});
  if (rank.state == RankState::kLost || rank.state == RankState::kFailed) {
    StopOthersAfter(attempt, rank, now, effects);
  }
  EndIfSettled(attempt, effects);
}

void AttemptTable::StopOthersAfter(Attempt& attempt, const RankRecord& rank, absl::Duration now,
                                   Effects& effects) {
  if (attempt.phase != AttemptPhase::kRunning) return;
  if (rank.failure.has_value() && rank.failure->is_peer_lost) {
    attempt.echo_deadline = std::min(attempt.echo_deadline, now + kEchoTimeout);
    if (now < attempt.echo_deadline) return;
  }
  BeginStop(attempt, DescribeEnd(rank));
  for (RankRecord& other : attempt.ranks) {
    if (HasEnded(other.state)) {
      // It ends by itself; it may still be writing its last log lines.
      other.kill_at = std::min(other.kill_at, now + kExitAfterFailed);
    } else {
      StopRank(attempt, other, absl::ZeroDuration(), now, effects);
    }
  }
}

void AttemptTable::EndIfSettled(Attempt& attempt, Effects& effects) {
  if (attempt.phase == AttemptPhase::kEnded || !attempt.AllRanksSettled()) return;
  for (const RankRecord& rank : attempt.ranks) {
    // Only echoes: each was waited for, and no cause has shown on this node.
    if (attempt.end_reason.empty() && rank.state != RankState::kFinished) {
      attempt.end_reason = DescribeEnd(rank);
    }
  }
  attempt.phase = *NextPhase(attempt.phase, AttemptEvent::kLastRankGone);
  MarkOver(attempt.key);
  effects.push_back(CleanUpAttempt{attempt.key});
}

void AttemptTable::TickAttempt(Attempt& attempt, absl::Duration now, Effects& effects) {
  if (attempt.phase == AttemptPhase::kEnded) return;
  const bool is_uncommitted =
      attempt.phase == AttemptPhase::kPreparing || attempt.phase == AttemptPhase::kPrepared;
  if (is_uncommitted) {
    if (now < attempt.commit_deadline) return;
    StopAttempt(attempt, absl::ZeroDuration(), "no commit came in time", now, effects);
    return;
  }
  if (attempt.phase == AttemptPhase::kRunning && now >= attempt.echo_deadline) {
    for (const RankRecord& rank : attempt.ranks) {
      if (rank.state == RankState::kFailed) StopOthersAfter(attempt, rank, now, effects);
    }
  }
  for (RankRecord& rank : attempt.ranks) TickRank(attempt, rank, now, effects);
}

void AttemptTable::TickRank(Attempt& attempt, RankRecord& rank, absl::Duration now,
                            Effects& effects) {
  if (rank.has_process && now >= rank.kill_at) {
    rank.kill_at = absl::InfiniteDuration();
    effects.push_back(SignalRank{attempt.key, rank.slot.rank, SIGKILL});
  }
  Settle(attempt, rank, now, effects);
}

std::string AttemptTable::DescribeEnd(const RankRecord& rank) const {
  std::string text = absl::StrCat("rank ", rank.slot.rank.value(), " on node ", node_id_.value());
  if (rank.failure.has_value()) {
    absl::StrAppend(&text, " failed: ", rank.failure->message);
  } else if (rank.exit.has_value()) {
    absl::StrAppend(&text, " ", rank.exit->ToString());
    if (rank.exit->exit_code == 0) absl::StrAppend(&text, " without saying that it had finished");
  }
  if (rank.last_step > 0) {
    absl::StrAppend(&text, "; its last step was ", rank.last_step);
  } else {
    absl::StrAppend(&text, "; it had not finished a step");
  }
  return text;
}

RankRecord* AttemptTable::FindRank(const AttemptKey& key, Rank rank) {
  Attempt* attempt = FindMutable(key);
  return attempt == nullptr ? nullptr : attempt->FindRank(rank);
}

}  // namespace autosp::agent
