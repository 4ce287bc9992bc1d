// From the reports of single ranks to the steps of a job.
#pragma once

#include <vector>

#include "absl/time/time.h"
#include "common/ids.h"
#include "server/coordinator/decision.h"
#include "server/coordinator/job.h"

namespace autosp {

// Takes one rank's report. False when the rank has reported this step or a later one before: a
// duplicate, or a message that comes late.
bool AddStepReport(Attempt& attempt, Rank rank, const StepReport& report);

// The steps that every rank has finished since the last call, in order.
std::vector<StepDone> TakeFinishedSteps(Attempt& attempt);

void AddToProgress(const StepReport& report, absl::Time now, JobProgress& progress);

}  // namespace autosp
