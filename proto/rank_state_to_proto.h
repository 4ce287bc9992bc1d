// RankState on the wire, for both of its ends.
#pragma once

#include <optional>

#include "autosp/v1/job.pb.h"
#include "common/rank_state.h"

namespace autosp {

v1::RankState RankStateToProto(RankState state);

// None for the unspecified state and for one that this version does not know.
std::optional<RankState> RankStateFromProto(v1::RankState state);

}  // namespace autosp
