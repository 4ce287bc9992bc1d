#include "worker/agent/attempt.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace autosp::agent {
namespace {

struct AttemptEdge {
  AttemptPhase from;
  AttemptEvent event;
  AttemptPhase to;
};

// The life of an attempt on one node. A pair that is not listed is refused.
constexpr AttemptEdge kAttemptEdges[] = {
    {AttemptPhase::kPreparing, AttemptEvent::kFilesReady, AttemptPhase::kPrepared},
    {AttemptPhase::kPreparing, AttemptEvent::kStopRequested, AttemptPhase::kEnded},
    {AttemptPhase::kPrepared, AttemptEvent::kCommitted, AttemptPhase::kRunning},
    {AttemptPhase::kPrepared, AttemptEvent::kStopRequested, AttemptPhase::kEnded},
    {AttemptPhase::kRunning, AttemptEvent::kStopRequested, AttemptPhase::kStopping},
    {AttemptPhase::kRunning, AttemptEvent::kLastRankGone, AttemptPhase::kEnded},
    {AttemptPhase::kStopping, AttemptEvent::kStopRequested, AttemptPhase::kStopping},
    {AttemptPhase::kStopping, AttemptEvent::kLastRankGone, AttemptPhase::kEnded},
};

struct RankEdge {
  RankState from;
  RankEvent event;
  RankState to;
};

// A rank's last word stands, however its process ends afterwards.
constexpr RankEdge kRankEdges[] = {
    {RankState::kPrepared, RankEvent::kSpawned, RankState::kSpawned},
    {RankState::kPrepared, RankEvent::kFailed, RankState::kFailed},  // It could not be started.
    {RankState::kPrepared, RankEvent::kGoneOnRequest, RankState::kStopped},
    {RankState::kSpawned, RankEvent::kHello, RankState::kRunning},
    {RankState::kSpawned, RankEvent::kFailed, RankState::kFailed},
    {RankState::kSpawned, RankEvent::kGoneByItself, RankState::kLost},
    {RankState::kSpawned, RankEvent::kGoneOnRequest, RankState::kStopped},
    {RankState::kRunning, RankEvent::kFinished, RankState::kFinished},
    {RankState::kRunning, RankEvent::kFailed, RankState::kFailed},
    {RankState::kRunning, RankEvent::kGoneByItself, RankState::kLost},
    {RankState::kRunning, RankEvent::kGoneOnRequest, RankState::kStopped},
};

absl::string_view AttemptEventName(AttemptEvent event) {
  switch (event) {
    case AttemptEvent::kFilesReady:
      return "files ready";
    case AttemptEvent::kCommitted:
      return "commit";
    case AttemptEvent::kStopRequested:
      return "stop";
    case AttemptEvent::kLastRankGone:
      return "last rank gone";
  }
  return "unknown";
}

absl::string_view RankEventName(RankEvent event) {
  switch (event) {
    case RankEvent::kSpawned:
      return "spawned";
    case RankEvent::kHello:
      return "hello";
    case RankEvent::kFinished:
      return "finished";
    case RankEvent::kFailed:
      return "failed";
    case RankEvent::kGoneByItself:
      return "gone by itself";
    case RankEvent::kGoneOnRequest:
      return "gone on request";
  }
  return "unknown";
}

}  // namespace

std::string AttemptKey::ToString() const {
  return absl::StrCat("job ", job_id.value(), " generation ", generation.value());
}

absl::string_view AttemptPhaseName(AttemptPhase phase) {
  switch (phase) {
    case AttemptPhase::kPreparing:
      return "preparing";
    case AttemptPhase::kPrepared:
      return "prepared";
    case AttemptPhase::kRunning:
      return "running";
    case AttemptPhase::kStopping:
      return "stopping";
    case AttemptPhase::kEnded:
      return "ended";
  }
  return "unknown";
}

absl::StatusOr<AttemptPhase> NextPhase(AttemptPhase from, AttemptEvent event) {
  for (const AttemptEdge& edge : kAttemptEdges) {
    if (edge.from == from && edge.event == event) return edge.to;
  }
  return FailedPrecondition(AttemptEventName(event), " is not allowed while ",
                            AttemptPhaseName(from));
}

absl::StatusOr<RankState> NextRankState(RankState from, RankEvent event) {
  for (const RankEdge& edge : kRankEdges) {
    if (edge.from == from && edge.event == event) return edge.to;
  }
  return FailedPrecondition("\"", RankEventName(event), "\" is not allowed for a rank that is ",
                            ToString(from));
}

std::string ProcessExit::ToString() const {
  if (signal_number == 0) return absl::StrCat("exited with code ", exit_code);
  const char* description = sigdescr_np(signal_number);
  return absl::StrCat("was killed by signal ", signal_number, " (",
                      description == nullptr ? "unknown" : description, ")");
}

const RankRecord* Attempt::FindRank(Rank rank) const {
  const auto found = std::find_if(ranks.begin(), ranks.end(),
                                  [rank](const RankRecord& r) { return r.slot.rank == rank; });
  return found == ranks.end() ? nullptr : &*found;
}

RankRecord* Attempt::FindRank(Rank rank) {
  return const_cast<RankRecord*>(static_cast<const Attempt*>(this)->FindRank(rank));
}

bool Attempt::AllRanksSettled() const {
  return std::all_of(ranks.begin(), ranks.end(),
                     [](const RankRecord& rank) { return rank.is_settled; });
}

}  // namespace autosp::agent
