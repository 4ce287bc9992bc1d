// Commands to agents as messages.
#pragma once

#include "absl/status/statusor.h"
#include "autosp/v1/agent.pb.h"
#include "compiler/planner/verification.h"
#include "server/coordinator/decision.h"
#include "server/coordinator/job.h"
#include "server/store/job_store.h"

namespace autosp {

absl::StatusOr<v1::PrepareRequest> PrepareToProto(const PrepareRanks& command, const Job& job,
                                                  const JobInputs& inputs);

// With the secret of the attempt, if it spans nodes.
v1::CommitRequest CommitToProto(const CommandAttempt& command, const Job& job);

// What an attempt that verifies the job is told instead: the part of an AttemptSpec that differs.
v1::AttemptSpec VerificationOrderToProto(const Verification& verification);

}  // namespace autosp
