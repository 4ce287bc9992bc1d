// What a coordinator says to its callers when it ends: nothing is wrong with the call, and the next
// coordinator, which is back in seconds after a restart, may take it.
#pragma once

#include "absl/status/status.h"
#include "common/error_info.h"
#include "common/errors.h"

namespace autosp {

inline constexpr char kShuttingDownReason[] = "SHUTTING_DOWN";

inline absl::Status ShuttingDown() {
  return WithErrorInfo(Unavailable("the coordinator is shutting down"),
                       {.reason = kShuttingDownReason, .remedy = "call again once it is back"});
}

}  // namespace autosp
