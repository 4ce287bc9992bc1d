// A verification as the only rank of an attempt, started by an agent.
#pragma once

#include <string>

#include "common/verification_result.h"
#include "worker/verify/verifier.h"

namespace autosp {

// Reads the rank spec, says hello to the agent, verifies, and reports the result. Returns the exit
// code of the process: 0 where there is a result, whatever it says.
int RunAsRank(const std::string& spec_path);

// What the coordinator is told of `result`.
VerificationResult SummaryOf(const VerifierResult& result, double seconds);

}  // namespace autosp
