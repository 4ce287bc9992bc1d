#include "client/progress.h"

#include <sstream>

#include "gtest/gtest.h"

namespace autosp {
namespace {

v1::StepReport Report(int64_t step, double loss) {
  v1::StepReport report;
  report.set_step(step);
  report.set_loss(loss);
  report.set_tokens(1000);
  report.set_step_seconds(2.0);
  return report;
}

absl::Time At(double seconds) { return absl::UnixEpoch() + absl::Seconds(seconds); }

TEST(ProgressTracker, SaysWhatIsLeftAtTheRecentPace) {
  ProgressTracker tracker(100);
  EXPECT_EQ(tracker.TimeLeft(), absl::InfiniteDuration());
  tracker.Add(Report(1, 5.0), At(0));
  EXPECT_EQ(tracker.TimeLeft(), absl::Seconds(2 * 99));  // All it knows is the step itself.
  tracker.Add(Report(2, 4.9), At(3));
  EXPECT_EQ(tracker.TimeLeft(), absl::Seconds(3 * 98));  // With what lies between two steps.
  EXPECT_EQ(tracker.Line(), "step   2/100  loss 4.9000  500 tokens/s  4m54s left");
}

TEST(ProgressTracker, ForgetsSlowStepsAfterTwenty) {
  ProgressTracker tracker(1000);
  tracker.Add(Report(1, 5.0), At(0));
  for (int step = 2; step <= 30; ++step) tracker.Add(Report(step, 4.0), At(1000 + step));
  EXPECT_EQ(tracker.TimeLeft(), absl::Seconds(970));
}

TEST(ProgressTracker, LeavesTheFirstStepOutOfTheMean) {
  ProgressTracker tracker(3);
  v1::StepReport first = Report(1, 5.0);
  first.set_step_seconds(100.0);
  tracker.Add(first, At(0));
  EXPECT_DOUBLE_EQ(tracker.mean_tokens_per_second(), 10.0);
  tracker.Add(Report(2, 4.0), At(2));
  tracker.Add(Report(3, 3.0), At(4));
  EXPECT_DOUBLE_EQ(tracker.mean_tokens_per_second(), 500.0);
  EXPECT_EQ(tracker.num_tokens(), 3000);
  EXPECT_EQ(tracker.first_loss(), 5.0);
  EXPECT_EQ(tracker.last_loss(), 3.0);
  EXPECT_EQ(tracker.Line(), "step 3/3  loss 3.0000  29 tokens/s");
}

TEST(ProgressTracker, StartsAnewWithANewAttempt) {
  ProgressTracker tracker(10);
  tracker.Add(Report(1, 5.0), At(0));
  tracker.Add(Report(2, 4.0), At(2));
  tracker.Add(Report(1, 6.0), At(50));
  EXPECT_EQ(tracker.first_loss(), 6.0);
  EXPECT_EQ(tracker.num_tokens(), 1000);
}

TEST(ProgressTracker, GoesOnWithAnAttemptThatDoesStepsAgain) {
  ProgressTracker tracker(10);
  for (int step = 1; step <= 6; ++step) tracker.Add(Report(step, 7.0 - step), At(step));
  tracker.Add(Report(5, 2.0), At(500));
  tracker.Add(Report(6, 1.0), At(503));
  EXPECT_EQ(tracker.first_step(), 1);
  EXPECT_EQ(tracker.first_loss(), 6.0);
  EXPECT_EQ(tracker.last_step(), 6);
  EXPECT_EQ(tracker.TimeLeft(), absl::Seconds(3 * 4)) << "the pause between is no pace";
}

TEST(ProgressPrinter, WritesInPlaceOnATerminal) {
  std::ostringstream out;
  ProgressPrinter printer(out, /*is_terminal=*/true, 0);
  ProgressTracker tracker(2);
  tracker.Add(Report(1, 5.0), At(0));
  printer.Show(tracker);
  printer.Print("running");
  tracker.Add(Report(2, 4.0), At(2));
  printer.Show(tracker);
  printer.Finish();
  EXPECT_EQ(out.str(),
            "\r\x1b[Kstep 1/2  loss 5.0000  500 tokens/s  2s left"
            "\r\x1b[Krunning\nstep 1/2  loss 5.0000  500 tokens/s  2s left"
            "\r\x1b[Kstep 2/2  loss 4.0000  500 tokens/s\n");
}

TEST(ProgressPrinter, WritesAboutTwentyLinesElsewhere) {
  std::ostringstream out;
  ProgressPrinter printer(out, /*is_terminal=*/false, 0);
  ProgressTracker tracker(1001);
  for (int step = 1; step <= 1001; ++step) {
    tracker.Add(Report(step, 1.0), At(step));
    printer.Show(tracker);
  }
  const std::string text = out.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 22);  // The first, 50, 100, ..., the last.
  EXPECT_EQ(text.find('\r'), std::string::npos);
}

TEST(ProgressPrinter, ShowsEveryValidationLoss) {
  std::ostringstream out;
  ProgressPrinter printer(out, /*is_terminal=*/false, 1000);
  ProgressTracker tracker(1000);
  tracker.Add(Report(7, 5.0), At(0));
  v1::StepReport validated = Report(8, 4.0);
  validated.set_validation_loss(4.25);
  tracker.Add(validated, At(2));
  printer.Show(tracker);
  EXPECT_EQ(out.str(),
            "step    8/1000  loss 4.0000  validation 4.2500  500 tokens/s  33m04s left\n");
}

}  // namespace
}  // namespace autosp
