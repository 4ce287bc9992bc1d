#include "worker/rank/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace autosp {
namespace {

// From 1 at progress 0 to `end` at progress 1.
double Decay(ScheduleKind kind, double progress, double end) {
  switch (kind) {
    case ScheduleKind::kConstant:
      return 1;
    case ScheduleKind::kLinear:
      return 1 + (end - 1) * progress;
    case ScheduleKind::kCosine:
      return end + (1 - end) * (1 + std::cos(std::numbers::pi * progress)) / 2;
  }
  return 1;
}

}  // namespace

double LearningRateAt(const TrainingSpec& training, int64_t step) {
  const ScheduleSpec& schedule = training.schedule;
  const double rate = training.optimizer.lr;
  if (step < schedule.warmup_steps) {
    return rate * static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps);
  }
  const int64_t first_full = std::max<int64_t>(schedule.warmup_steps - 1, 0);
  const int64_t decay_steps = training.steps - 1 - first_full;
  const double progress =
      decay_steps <= 0 ? 0
                       : static_cast<double>(step - first_full) / static_cast<double>(decay_steps);
  return rate * Decay(schedule.kind, std::min(progress, 1.0), schedule.min_lr_ratio);
}

}  // namespace autosp
