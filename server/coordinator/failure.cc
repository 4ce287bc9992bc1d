#include "server/coordinator/failure.h"

#include <algorithm>
#include <csignal>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace autosp {
namespace {

std::string AfterStep(int64_t step, absl::string_view whose = "its") {
  return step > 0 ? absl::StrCat("after step ", step)
                  : absl::StrCat("before ", whose, " first step");
}

std::string SignalName(int64_t number) {
  const char* name = sigabbrev_np(static_cast<int>(number));
  return name != nullptr ? absl::StrCat("SIG", name) : absl::StrCat("signal ", number);
}

// `when` is empty or begins with a space.
std::string HowItEnded(const RankStatus& status, const std::string& when) {
  const RankExit exit = status.exit.value_or(RankExit());
  if (status.state == RankState::kStopped) {
    return absl::StrCat("was stopped by its agent", when, status.stop_reason.empty() ? "" : ": ",
                        status.stop_reason);
  }
  if (exit.has_failure || status.state == RankState::kFailed) {
    return absl::StrCat("failed", when, ": ",
                        exit.message.empty() ? "it gave no message" : exit.message);
  }
  if (exit.signal_number != 0) {
    return absl::StrCat("was killed by ", SignalName(exit.signal_number), when);
  }
  return absl::StrCat("exited with code ", exit.exit_code, when, " without saying why");
}

std::string NameOfRank(const Attempt& attempt, Rank rank) {
  if (attempt.kind == AttemptKind::kVerification) return "the verification of the plan";
  return absl::StrCat("rank ", rank);
}

std::vector<int64_t> RanksOn(const Attempt& attempt, const NodeId& node) {
  std::vector<int64_t> ranks;
  for (size_t i = 0; i < attempt.ranks.size(); ++i) {
    if (attempt.ranks[i].node == node) ranks.push_back(static_cast<int64_t>(i));
  }
  return ranks;
}

std::string RankList(const std::vector<int64_t>& ranks) {
  return absl::StrCat(ranks.size() == 1 ? "rank " : "ranks ", absl::StrJoin(ranks, ", "));
}

int64_t LastStepOn(const Attempt& attempt, const NodeId& node) {
  int64_t last_step = 0;
  for (const RankPart& rank : attempt.ranks) {
    if (rank.node == node) last_step = std::max(last_step, rank.last_step);
  }
  return last_step;
}

std::vector<std::string> LogOf(const Attempt& attempt, int64_t rank) {
  auto lines = attempt.log_lines.find(rank);
  return lines == attempt.log_lines.end() ? std::vector<std::string>() : *lines->second;
}

}  // namespace

FailureCause RankCause(const Attempt& attempt, const RankStatus& status) {
  const RankPart& rank = attempt.ranks[status.rank.value()];
  FailureCause cause;
  cause.kind = status.state == RankState::kFailed ? FailureCause::Kind::kRankFailed
                                                  : FailureCause::Kind::kRankLost;
  cause.rank = status.rank;
  cause.node = rank.node;
  cause.last_step = std::max(rank.last_step, status.last_step);
  cause.generation = attempt.generation;
  if (status.exit) {
    cause.log_lines = status.exit->log_lines;
    cause.status_code = status.exit->status_code;
    cause.instruction = status.exit->instruction;
    cause.is_echo = status.exit->is_peer_lost;
  }
  if (cause.log_lines.empty()) cause.log_lines = LogOf(attempt, status.rank.value());
  // An agent stops a rank because of something else, which may be known later.
  if (status.state == RankState::kStopped && status.stop_reason.empty()) cause.is_echo = true;
  cause.message =
      absl::StrCat(NameOfRank(attempt, status.rank), " on node ", rank.node, " ",
                   HowItEnded(status, attempt.kind == AttemptKind::kVerification
                                          ? ""
                                          : absl::StrCat(" ", AfterStep(cause.last_step))));
  return cause;
}

FailureCause NodeCause(const Attempt& attempt, const NodeId& node, FailureCause::Kind kind,
                       absl::string_view why) {
  const std::vector<int64_t> ranks = RanksOn(attempt, node);
  FailureCause cause;
  cause.kind = kind;
  if (!ranks.empty()) cause.rank = Rank(ranks.front());
  cause.node = node;
  // The rank that has said something last stands for all of the node.
  for (int64_t rank : ranks) {
    if (!cause.log_lines.empty()) break;
    cause.log_lines = LogOf(attempt, rank);
    if (!cause.log_lines.empty()) cause.rank = Rank(rank);
  }
  cause.last_step = LastStepOn(attempt, node);
  cause.generation = attempt.generation;
  cause.message = absl::StrCat("node ", node, ": ", why, "; ");
  if (attempt.kind == AttemptKind::kVerification) {
    absl::StrAppend(&cause.message, "the verification of the plan ended without a result");
  } else {
    absl::StrAppend(&cause.message, RankList(ranks), " ended ",
                    AfterStep(cause.last_step, ranks.size() == 1 ? "its" : "their"));
  }
  return cause;
}

FailureCause HungCause(const Attempt& attempt, absl::Duration silence) {
  auto behind = std::ranges::min_element(attempt.ranks, {}, &RankPart::last_step);
  FailureCause cause;
  cause.kind = FailureCause::Kind::kHung;
  cause.rank = Rank(behind - attempt.ranks.begin());
  cause.node = behind->node;
  cause.log_lines = LogOf(attempt, cause.rank->value());
  cause.last_step = behind->last_step;
  cause.generation = attempt.generation;
  cause.message = absl::StrCat("no rank has finished a step for ", absl::FormatDuration(silence),
                               "; rank ", *cause.rank, " on node ", cause.node,
                               " is the first that stopped, ", AfterStep(cause.last_step));
  return cause;
}

FailureCause StartCause(const Attempt& attempt, const NodeId& node, absl::string_view why) {
  const std::vector<int64_t> ranks = RanksOn(attempt, node);
  FailureCause cause;
  cause.kind = FailureCause::Kind::kStartFailed;
  if (!ranks.empty()) cause.rank = Rank(ranks.front());
  cause.node = node;
  cause.generation = attempt.generation;
  cause.message =
      absl::StrCat("attempt ", attempt.generation, " did not start: node ", node, ": ", why);
  return cause;
}

FailureCause CancelCause(const Attempt* attempt, absl::string_view reason) {
  FailureCause cause;
  cause.kind = FailureCause::Kind::kCancelled;
  if (attempt != nullptr) {
    cause.generation = attempt->generation;
    for (const RankPart& rank : attempt->ranks) {
      cause.last_step = std::max(cause.last_step, rank.last_step);
    }
  }
  cause.message =
      reason.empty() ? "cancelled on request" : absl::StrCat("cancelled on request: ", reason);
  return cause;
}

FailureCause PlanDiffersCause(const Attempt& attempt, const VerificationResult& result) {
  FailureCause cause;
  cause.kind = FailureCause::Kind::kPlanDiffers;
  cause.rank = Rank(0);
  cause.node = attempt.ranks.front().node;
  cause.generation = attempt.generation;
  cause.log_lines = LogOf(attempt, 0);
  cause.message = absl::StrCat(
      "the plan does not compute what the model does on one device: ", result.WorstText(),
      "; nothing was trained; please report it with "
      "`autosp-cli support-bundle`");
  return cause;
}

bool IsWorthRestart(const FailureCause& cause) {
  switch (cause.kind) {
    case FailureCause::Kind::kRankLost:
    case FailureCause::Kind::kAgentLost:
    case FailureCause::Kind::kHung:
    case FailureCause::Kind::kNotReattached:
      return true;
    case FailureCause::Kind::kStartFailed:
      // Ranks that did not come up in time. What an agent refused with a code, it refuses again.
      return cause.status_code == 0;
    case FailureCause::Kind::kRankFailed: {
      const auto code = static_cast<absl::StatusCode>(cause.status_code);
      return cause.is_echo || code == absl::StatusCode::kUnavailable ||
             code == absl::StatusCode::kDeadlineExceeded || code == absl::StatusCode::kAborted;
    }
    case FailureCause::Kind::kCancelled:
    case FailureCause::Kind::kPlanDiffers:
      return false;
  }
  return false;
}

bool MayRestart(const Job& job) {
  return job.attempt && job.attempt->outcome == AttemptOutcome::kFault && job.cause &&
         IsWorthRestart(*job.cause) && job.restarts.used < job.request->max_restarts;
}

bool GoesOnAfterStop(const Job& job) {
  const Attempt& attempt = *job.attempt;
  const bool is_verified =
      attempt.kind == AttemptKind::kVerification && attempt.outcome == AttemptOutcome::kFinished;
  return is_verified || attempt.outcome == AttemptOutcome::kRetryStart || MayRestart(job);
}

bool IsBetterCause(const FailureCause& next, const FailureCause& current) {
  return current.is_echo && !next.is_echo;
}

}  // namespace autosp
