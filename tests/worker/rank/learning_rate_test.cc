#include "worker/rank/learning_rate.h"

#include "gtest/gtest.h"

namespace autosp {
namespace {

TrainingSpec Training(ScheduleKind kind, int64_t steps, int64_t warmup_steps, double min_lr_ratio) {
  TrainingSpec training;
  training.steps = steps;
  training.optimizer.lr = 2.0;
  training.schedule = {.kind = kind, .warmup_steps = warmup_steps, .min_lr_ratio = min_lr_ratio};
  return training;
}

TEST(LearningRateTest, ConstantStaysAfterTheWarmUp) {
  const TrainingSpec training = Training(ScheduleKind::kConstant, 10, 4, 0);
  EXPECT_DOUBLE_EQ(LearningRateAt(training, 0), 0.5);
  EXPECT_DOUBLE_EQ(LearningRateAt(training, 1), 1.0);
  EXPECT_DOUBLE_EQ(LearningRateAt(training, 3), 2.0);
  EXPECT_DOUBLE_EQ(LearningRateAt(training, 9), 2.0);
}

TEST(LearningRateTest, LinearFallsToTheRatioAtTheLastStep) {
  const TrainingSpec training = Training(ScheduleKind::kLinear, 11, 0, 0.1);
  EXPECT_DOUBLE_EQ(LearningRateAt(training, 0), 2.0);
  EXPECT_DOUBLE_EQ(LearningRateAt(training, 5), 1.1);
  EXPECT_DOUBLE_EQ(LearningRateAt(training, 10), 0.2);
}

TEST(LearningRateTest, CosineIsHalfwayInTheMiddle) {
  const TrainingSpec training = Training(ScheduleKind::kCosine, 13, 3, 0.5);
  EXPECT_DOUBLE_EQ(LearningRateAt(training, 2), 2.0);
  EXPECT_DOUBLE_EQ(LearningRateAt(training, 7), 1.5);
  EXPECT_DOUBLE_EQ(LearningRateAt(training, 12), 1.0);
}

TEST(LearningRateTest, OneStepRunsAtTheFullRate) {
  EXPECT_DOUBLE_EQ(LearningRateAt(Training(ScheduleKind::kCosine, 1, 0, 0), 0), 2.0);
  EXPECT_DOUBLE_EQ(LearningRateAt(Training(ScheduleKind::kLinear, 1, 1, 0), 0), 2.0);
}

}  // namespace
}  // namespace autosp
