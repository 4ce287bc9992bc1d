// The refusals of an agent that programs react to, by ErrorInfo.reason.

#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/agent_protocol.h"
#include "common/ids.h"
#include "worker/agent/attempt.h"

namespace autosp::agent {

// Those that the coordinator reacts to as well are in common/agent_protocol.h.
inline constexpr absl::string_view kReasonStaleGeneration = "STALE_GENERATION";
inline constexpr absl::string_view kReasonAttemptOver = "ATTEMPT_OVER";
inline constexpr absl::string_view kReasonAttemptNotPrepared = "ATTEMPT_NOT_PREPARED";
inline constexpr absl::string_view kReasonDeviceTaken = "DEVICE_TAKEN";
inline constexpr absl::string_view kReasonNoLease = "NO_LEASE";
inline constexpr absl::string_view kReasonWrongNode = "WRONG_NODE";

absl::Status WithReason(absl::Status status, absl::string_view reason);

// FAILED_PRECONDITION that names both numbers.
absl::Status StaleGenerationError(const AttemptKey& key, Generation newest);

}  // namespace autosp::agent
