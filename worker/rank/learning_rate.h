// The learning rate of each step.
#pragma once

#include <cstdint>

#include "compiler/config/job_spec.h"

namespace autosp {

// `step` counts from 0 to training.steps - 1. During the warm-up the rate rises linearly, so that
// the last warm-up step is the first at the full rate; from there it falls, where the schedule says
// so, to min_lr_ratio of it at the last step.
double LearningRateAt(const TrainingSpec& training, int64_t step);

}  // namespace autosp
