// Values that live from launch to the end of the job.
#pragma once

#include "absl/status/status.h"
#include "worker/executor/step.h"
#include "worker/executor/weight_source.h"

namespace autosp {

// Fills the slots of all persistent values in `state`. Errors name the persistent.
absl::Status LoadPersistents(const StepContext& context, WeightSource* weights, RunState& state);

}  // namespace autosp
