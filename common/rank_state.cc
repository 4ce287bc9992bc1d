#include "common/rank_state.h"

#include "common/check.h"

namespace autosp {

bool HasEnded(RankState state) {
  return state == RankState::kFinished || state == RankState::kFailed ||
         state == RankState::kLost || state == RankState::kStopped;
}

absl::string_view ToString(RankState state) {
  switch (state) {
    case RankState::kPrepared:
      return "prepared";
    case RankState::kSpawned:
      return "spawned";
    case RankState::kRunning:
      return "running";
    case RankState::kFinished:
      return "finished";
    case RankState::kFailed:
      return "failed";
    case RankState::kLost:
      return "lost";
    case RankState::kStopped:
      return "stopped";
  }
  AUTOSP_CHECK(false, "rank state ", static_cast<int>(state));
}

}  // namespace autosp
