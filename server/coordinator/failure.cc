#include "server/coordinator/failure.h"

#include <algorithm>
#include <csignal>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace autosp {
namespace {

std::string AfterStep(int64_t step) {
  return step > 0 ? absl::StrCat("after step ", step) : "before its first step";
}

std::string SignalName(int64_t number) {
  const char* name = sigabbrev_np(static_cast<int>(number));
  return name != nullptr ? absl::StrCat("SIG", name) : absl::StrCat("signal ", number);
}

std::string HowItEnded(const RankStatus& status, int64_t last_step) {
  const RankExit exit = status.exit.value_or(RankExit());
  if (status.state == RankState::kStopped) {
    return absl::StrCat("was stopped by its agent ", AfterStep(last_step));
  }
  if (exit.has_failure || status.state == RankState::kFailed) {
    return absl::StrCat("failed ", AfterStep(last_step), ": ",
                        exit.message.empty() ? "it gave no message" : exit.message);
  }
  if (exit.signal_number != 0) {
    return absl::StrCat("was killed by ", SignalName(exit.signal_number), " ",
                        AfterStep(last_step));
  }
  return absl::StrCat("exited with code ", exit.exit_code, " ", AfterStep(last_step),
                      " without saying why");
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
  cause.message = absl::StrCat("rank ", status.rank, " on node ", rank.node, " ",
                               HowItEnded(status, cause.last_step));
  return cause;
}

FailureCause NodeCause(const Attempt& attempt, const NodeId& node, FailureCause::Kind kind,
                       absl::string_view why) {
  const std::vector<int64_t> ranks = RanksOn(attempt, node);
  FailureCause cause;
  cause.kind = kind;
  if (!ranks.empty()) cause.rank = Rank(ranks.front());
  cause.node = node;
  cause.last_step = LastStepOn(attempt, node);
  cause.generation = attempt.generation;
  cause.message = absl::StrCat("node ", node, ": ", why, "; ", RankList(ranks), " ended ",
                               AfterStep(cause.last_step));
  return cause;
}

FailureCause HungCause(const Attempt& attempt, absl::Duration silence) {
  auto behind = std::ranges::min_element(attempt.ranks, {}, &RankPart::last_step);
  FailureCause cause;
  cause.kind = FailureCause::Kind::kHung;
  cause.rank = Rank(behind - attempt.ranks.begin());
  cause.node = behind->node;
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

bool IsBetterCause(const FailureCause& next, const FailureCause& current) {
  return current.is_echo && !next.is_echo;
}

}  // namespace autosp
