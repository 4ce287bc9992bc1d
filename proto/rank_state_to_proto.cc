#include "proto/rank_state_to_proto.h"

#include <utility>

namespace autosp {
namespace {

constexpr std::pair<RankState, v1::RankState> kStates[] = {
    {RankState::kPrepared, v1::RANK_STATE_PREPARED},
    {RankState::kSpawned, v1::RANK_STATE_SPAWNED},
    {RankState::kRunning, v1::RANK_STATE_RUNNING},
    {RankState::kFinished, v1::RANK_STATE_FINISHED},
    {RankState::kFailed, v1::RANK_STATE_FAILED},
    {RankState::kLost, v1::RANK_STATE_LOST},
    {RankState::kStopped, v1::RANK_STATE_STOPPED},
};

}  // namespace

v1::RankState RankStateToProto(RankState state) {
  for (const auto& [ours, theirs] : kStates) {
    if (ours == state) return theirs;
  }
  return v1::RANK_STATE_UNSPECIFIED;
}

std::optional<RankState> RankStateFromProto(v1::RankState state) {
  for (const auto& [ours, theirs] : kStates) {
    if (theirs == state) return ours;
  }
  return std::nullopt;
}

}  // namespace autosp
