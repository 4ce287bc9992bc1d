// Ranks whose start takes long: the agent goes on with everything else.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/fanotify.h>

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "tests/worker/agent/agent_process_fixture.h"

namespace autosp::agent {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Seen = FakeCoordinator::Seen;

// Holds back whoever executes a file, as a file system that is away does.
class HeldProgram {
 public:
  explicit HeldProgram(const std::string& path)
      : fd_(fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY)) {
    is_held_ = fd_.is_open() && fanotify_mark(fd_.get(), FAN_MARK_ADD, FAN_OPEN_EXEC_PERM, AT_FDCWD,
                                              path.c_str()) == 0;
  }
  // Root may, where the kernel can.
  bool is_held() const { return is_held_; }
  // Whether somebody waits, at the latest after 10 s.
  bool AwaitExecution() const {
    pollfd polled{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    return poll(&polled, 1, 10'000) == 1;
  }
  // Who waits goes on, and nobody is held any more.
  void Release() { fd_.Reset(); }

 private:
  UniqueFd fd_;
  bool is_held_ = false;
};

class SlowStartTest : public AgentProcessTest {};

TEST_F(SlowStartTest, AStartThatHangsHoldsBackNoHeartbeat) {
  const std::string program = folder_ + "/slow-rank";
  std::filesystem::copy_file(std::getenv("AUTOSP_FAKE_RANK"), program);
  HeldProgram held(program);
  if (!held.is_held()) GTEST_SKIP() << "executions cannot be held back here";
  coordinator_.Change([](FakeCoordinator::Answers& answers) { answers.lease_ms = 1'000; });
  StartAgent({absl::StrCat("--rank-binary=", program)});
  StartRanks("* hello\n* steps 2 10\n* finish\n");
  ASSERT_TRUE(held.AwaitExecution());
  const int before = coordinator_.Get().num_heartbeats;
  EXPECT_TRUE(coordinator_.WaitUntil([&](const Seen& seen) {
    return seen.num_heartbeats >= before + 40;
  })) << "two leases long";
  held.Release();
  WaitForState(0, v1::RANK_STATE_FINISHED);
  WaitForState(1, v1::RANK_STATE_FINISHED);
  EXPECT_THAT(agent_->LogText(), Not(HasSubstr("the lease has run out")));
}

TEST_F(SlowStartTest, AnAttemptThatIsStoppedWhileItStartsEndsOnceItHas) {
  const std::string program = folder_ + "/slow-rank";
  std::filesystem::copy_file(std::getenv("AUTOSP_FAKE_RANK"), program);
  HeldProgram held(program);
  if (!held.is_held()) GTEST_SKIP() << "executions cannot be held back here";
  StartAgent({absl::StrCat("--rank-binary=", program)});
  StartRanks("* hello\n* sleep\n");
  ASSERT_TRUE(held.AwaitExecution());
  ASSERT_TRUE(agent_->StopAttempt(kJob, absl::Seconds(5)).ok());
  WaitForState(1, v1::RANK_STATE_STOPPED);
  WaitForPhase(v1::AttemptStatus::PHASE_RUNNING);
  held.Release();
  WaitForPhase(v1::AttemptStatus::PHASE_ENDED);
  EXPECT_EQ(StatusOf(0).state(), v1::RANK_STATE_STOPPED);
  EXPECT_TRUE(AreGone({StatusOf(0).pid()}, absl::Seconds(5)));
}

}  // namespace
}  // namespace autosp::agent
