// How many files an agent opens for its ranks, and that it may.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "tests/worker/agent/agent_process.h"
#include "tests/worker/agent/fake_coordinator.h"

namespace autosp::agent {
namespace {

constexpr char kJob[] = "job-test";
constexpr int kNumRanks = 32;

// The soft limit that it starts with is not enough.
TEST(AgentOpenFilesTest, GoesPastTheSoftLimit) {
  std::string folder = ::testing::TempDir() + "/agent-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  FakeCoordinator coordinator;
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  if (before.rlim_max < 512) GTEST_SKIP() << "the hard limit is " << before.rlim_max;
  const rlimit small = {.rlim_cur = 64, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &small), 0);
  auto agent =
      AgentProcess::Start(coordinator, folder, {absl::StrCat("--devices=", kNumRanks)}, {});
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_TRUE(agent.ok()) << agent.status();
  const auto request =
      MakePrepare(folder, kJob, kNumRanks, "* log ready\n* hello\n* steps 1 10\n* hang\n");
  ASSERT_TRUE((*agent)->Prepare(request).ok());
  ASSERT_TRUE((*agent)->Commit(kJob).ok());
  const bool have_all_stepped = coordinator.WaitUntil(
      [](const auto& seen) {
        const auto job = seen.steps.find(kJob);
        return job != seen.steps.end() && job->second.size() == kNumRanks;
      },
      absl::Seconds(60));
  EXPECT_TRUE(have_all_stepped) << (*agent)->LogText();
  const auto files = ListFolder(absl::StrCat("/proc/", (*agent)->process().pid(), "/fd"));
  ASSERT_TRUE(files.ok());
  EXPECT_GT(std::ssize(*files), 64);
  // As `autosp-cli doctor` counts.
  EXPECT_LE(std::ssize(*files), 64 + 4 * kNumRanks);
  *agent = nullptr;
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace autosp::agent
