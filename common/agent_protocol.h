// What the coordinator and its agents must agree on beside the messages of proto/autosp/v1.
#pragma once

#include <cstddef>

#include "absl/strings/string_view.h"

namespace autosp {

// Reasons of refusals (ErrorInfo.reason) that the other side reacts to. By the coordinator:
inline constexpr absl::string_view kReasonAgentNotRegistered = "AGENT_NOT_REGISTERED";
inline constexpr absl::string_view kReasonStaleAgent = "STALE_AGENT";
// By an agent:
inline constexpr absl::string_view kReasonAgentEnding = "AGENT_ENDING";

// Reports of steps that wait in an agent for the coordinator; the oldest go first. Reports of
// states are never dropped.
inline constexpr size_t kMaxQueuedSteps = 4096;
inline constexpr size_t kMaxReportsInBatch = 256;

}  // namespace autosp
