// The only place that validates what an agent receives: from the coordinator (orders) and from its
// ranks (reports).

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "autosp/v1/agent.pb.h"
#include "autosp/v1/rank.pb.h"
#include "worker/agent/attempt.h"
#include "worker/agent/attempt_order.h"

namespace autosp::agent {

absl::StatusOr<AttemptKey> KeyFromProto(const v1::AttemptRef& ref);
absl::StatusOr<AttemptOrder> OrderFromProto(const v1::PrepareRequest& request);
absl::StatusOr<PeersOrder> PeersFromProto(const v1::CommitRequest& request);
// Refuses more than kMaxStopGrace.
absl::StatusOr<absl::Duration> GraceFromProto(int64_t grace_ms);

RankFailureInfo FailureFromProto(const v1::RankFailure& failure);
RankResult ResultFromProto(const v1::RankFinished& finished);

}  // namespace autosp::agent
