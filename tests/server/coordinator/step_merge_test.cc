#include "server/coordinator/step_merge.h"

#include <algorithm>

#include "gtest/gtest.h"

namespace autosp {
namespace {

// What an agent keeps while the coordinator is away.
constexpr int64_t kQueued = 4096 + 256;  // and on the way

StepReport ReportOf(int64_t step) {
  StepReport report;
  report.step = step;
  return report;
}

TEST(StepMergeTest, AgentsHandInOneAfterTheOther) {
  Attempt attempt;
  attempt.ranks.resize(2);
  int64_t num_steps = 0;
  for (int64_t rank = 0; rank < 2; ++rank) {
    for (int64_t step = 1; step <= kQueued; ++step) {
      ASSERT_TRUE(AddStepReport(attempt, Rank(rank), ReportOf(step)));
    }
    for (const StepDone& done : TakeFinishedSteps(attempt)) {
      EXPECT_EQ(done.report.step, ++num_steps);
    }
  }
  EXPECT_EQ(num_steps, kQueued);
  EXPECT_TRUE(attempt.open_steps.empty());
}

// A rank whose reports are lost holds back no memory for ever.
TEST(StepMergeTest, OpenStepsAreBounded) {
  Attempt attempt;
  attempt.ranks.resize(2);
  for (int64_t step = 1; step <= 2 * kQueued; ++step) {
    AddStepReport(attempt, Rank(0), ReportOf(step));
  }
  EXPECT_EQ(std::ssize(attempt.open_steps), kQueued);
}

}  // namespace
}  // namespace autosp
