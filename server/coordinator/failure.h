// Why attempts end, in words that name rank, node and last step.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/ids.h"
#include "server/coordinator/event.h"
#include "server/coordinator/job.h"

namespace autosp {

// Requires: `status` says how the rank ended, and HasEnded(status.state).
FailureCause RankCause(const Attempt& attempt, const RankStatus& status);

// The agent of `node`, and with it every rank there, is gone; `why` continues "node n: ...".
FailureCause NodeCause(const Attempt& attempt, const NodeId& node, FailureCause::Kind kind,
                       absl::string_view why);

// No step for too long. Names the rank that is furthest behind.
FailureCause HungCause(const Attempt& attempt, absl::Duration silence);

FailureCause StartCause(const Attempt& attempt, const NodeId& node, absl::string_view why);

FailureCause CancelCause(const Attempt* attempt, absl::string_view reason);

// Whether another attempt may go further: a machine, a process or a connection was lost. What a job
// does to itself (a loss that is NaN, too little memory, wrong data) it would do again.
bool IsWorthRestart(const FailureCause& cause);

// The verification has found the plan to be wrong.
FailureCause PlanDiffersCause(const Attempt& attempt, const VerificationResult& result);

// Whether the fault for which the job is being stopped is followed by a restart.
bool MayRestart(const Job& job);

// Whether the job will be queued again once its attempt is stopped.
bool GoesOnAfterStop(const Job& job);

// True when `next` explains more than `current`: an echo ("my peer is gone") gives way to its
// origin, and nothing else gives way.
bool IsBetterCause(const FailureCause& next, const FailureCause& current);

}  // namespace autosp
