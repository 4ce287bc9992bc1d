#include "client/run_interrupts.h"

#include <signal.h>

#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_coordinator.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

void AwaitInterrupt(RunInterrupts& interrupts) {
  while (!interrupts.is_interrupted()) absl::SleepFor(absl::Milliseconds(5));
}

class RunInterruptsTest : public testing::Test {
 protected:
  RunInterruptsTest() {
    signal(SIGINT, SIG_DFL);  // Ignored where the tests run in the background of a script.
    server_.Change([](auto& answers) { answers.hangs_after_events = true; });
  }

  absl::Status Watch() {
    return client_.WatchJob("job-1", [](const v1::JobEvent& /*event*/) {});
  }

  FakeCoordinator server_;
  CoordinatorClient client_{server_.address()};
};

TEST_F(RunInterruptsTest, OneBreaksOffTheSubmission) {
  server_.Change([](auto& answers) { answers.hangs = true; });
  RunInterrupts interrupts;
  interrupts.BeginSubmission(&client_);
  std::thread interrupter([this] {
    while (server_.Get().num_hanging == 0) absl::SleepFor(absl::Milliseconds(5));
    raise(SIGINT);
  });
  EXPECT_THAT(client_.SubmitJob({}), IsError(absl::StatusCode::kCancelled, "interrupted"));
  interrupter.join();
}

TEST_F(RunInterruptsTest, OneFromBeforeCounts) {
  RunInterrupts interrupts;
  raise(SIGINT);
  AwaitInterrupt(interrupts);
  interrupts.BeginSubmission(&client_);
  EXPECT_THAT(client_.SubmitJob({}), IsError(absl::StatusCode::kCancelled, "interrupted"));
  EXPECT_TRUE(server_.Get().submissions.empty());
}

TEST_F(RunInterruptsTest, TheFirstCancelsTheJobAndTheSecondTheWatch) {
  RunInterrupts interrupts;
  interrupts.BeginSubmission(&client_);
  interrupts.BeginJob(server_.address(), "job-1");
  std::thread interrupter([this] {
    raise(SIGINT);
    while (server_.Get().cancellations.empty()) absl::SleepFor(absl::Milliseconds(5));
    raise(SIGINT);
  });
  EXPECT_THAT(Watch(), IsError(absl::StatusCode::kCancelled, "interrupted"));
  interrupter.join();
  ASSERT_EQ(server_.Get().cancellations.size(), 1u);
  EXPECT_EQ(server_.Get().cancellations[0].job_id(), "job-1");
}

}  // namespace
}  // namespace autosp
