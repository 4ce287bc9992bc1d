// An agent with more ranks and files than tests have elsewhere.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "tests/worker/agent/agent_process_fixture.h"
#include "worker/agent/attempt_files.h"

namespace autosp::agent {
namespace {

class AgentScaleTest : public AgentProcessTest {
 protected:
  // Returns when each has reported a step.
  void StartSteppingRanks(int num_ranks) {
    StartRanks("* hello\n* steps 1 10\n* hang\n", num_ranks);
    const auto have_stepped = [num_ranks](const FakeCoordinator::Seen& seen) {
      const auto job = seen.steps.find(kJob);
      return job != seen.steps.end() && std::ssize(job->second) == num_ranks;
    };
    Require(coordinator_.WaitUntil(have_stepped, absl::Seconds(60)), "each rank reports a step");
  }
};

// The soft limit that it starts with is not enough.
TEST_F(AgentScaleTest, OpensMoreFilesThanTheSoftLimit) {
  constexpr int kNumRanks = 32;
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  if (before.rlim_max < 512) GTEST_SKIP() << "the hard limit is " << before.rlim_max;
  const rlimit small = {.rlim_cur = 64, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &small), 0);
  StartAgent({absl::StrCat("--devices=", kNumRanks)});
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  StartSteppingRanks(kNumRanks);
  const auto files = ListFolder(absl::StrCat("/proc/", agent_->process().pid(), "/fd"));
  ASSERT_TRUE(files.ok());
  EXPECT_GT(std::ssize(*files), 64);
  // As `autosp-cli doctor` counts.
  EXPECT_LE(std::ssize(*files), 64 + 4 * kNumRanks);
}

// What takes a disk a second to remove is no second without a heartbeat.
TEST_F(AgentScaleTest, TheEndOfAnAttemptDoesNotWaitForTheDisk) {
  StartAgent({"--devices=1"});
  StartSteppingRanks(1);
  const AttemptFiles files(folder_ + "/state");
  const std::string rendezvous =
      files.RendezvousFolder({JobId(kJob), Generation(1)}, /*rendezvous_id=*/kJob);
  ASSERT_TRUE(FileExists(rendezvous));
  for (int i = 0; i < 50'000; ++i) {
    const std::string path = absl::StrCat(rendezvous, "/", i);
    ASSERT_TRUE(UniqueFd(open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)).is_open());
  }
  coordinator_.Change([](auto& answers) { answers.stop_attempts = {Ref()}; });
  const auto has_ended = [](const FakeCoordinator::Seen& seen) {
    const v1::AttemptStatus* status = seen.Attempt(kJob);
    return status != nullptr && status->phase() == v1::AttemptStatus::PHASE_ENDED;
  };
  ASSERT_TRUE(coordinator_.WaitUntil(has_ended, absl::Seconds(60)));
  EXPECT_TRUE(FileExists(rendezvous)) << "the heartbeat came before all of it was removed";
  agent_ = nullptr;  // Ends without what it had still to remove.
  StartAgent({"--devices=1"});
  EXPECT_FALSE(FileExists(rendezvous)) << "the next one has looked";
}

}  // namespace
}  // namespace autosp::agent
