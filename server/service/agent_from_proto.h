// What agents send, checked and typed. Text that came from ranks is cut to its limits rather than
// refused: a rank's long last words must not keep its end from being known.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "autosp/v1/agent.pb.h"
#include "server/coordinator/decision.h"
#include "server/coordinator/event.h"

namespace autosp {

absl::StatusOr<AgentRegistered> AgentRegisteredFromProto(const v1::RegisterAgentRequest& request);
absl::StatusOr<AgentHeartbeat> AgentHeartbeatFromProto(const v1::HeartbeatRequest& request);

// Of an agent whose heartbeat has come at `now`; none where it does not say enough.
std::optional<ClockDifference> ClockFromProto(const v1::HeartbeatRequest& request, absl::Time now);
absl::StatusOr<RanksReported> RanksReportedFromProto(const v1::ReportRanksRequest& request);

v1::AttemptRef AttemptToProto(const AttemptId& attempt);

// What an agent answers to the prepare of an attempt that spans nodes: an address for each of its
// ranks.
absl::StatusOr<std::vector<RankAddress>> RankAddressesFromProto(const v1::PrepareResponse& proto,
                                                                const PrepareRanks& command);

}  // namespace autosp
