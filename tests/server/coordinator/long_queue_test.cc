// What one event costs where many jobs wait.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/coordinator/coordinator.h"
#include "tests/common/status_matchers.h"
#include "tests/server/coordinator/fake_store.h"

namespace autosp {
namespace {

using testing::HasSubstr;

constexpr int kNumJobs = 2000;
constexpr int kNumNodes = 64;

std::vector<Job> QueuedJobs() {
  auto request = std::make_shared<JobRequest>();
  request->world_size = kNumNodes;
  std::vector<Job> jobs;
  for (int i = 0; i < kNumJobs; ++i) {
    Job& job = jobs.emplace_back();
    job.id = JobId(absl::StrCat("job-", i));
    job.request = request;
    job.create_time = absl::UnixEpoch() + absl::Seconds(i);
  }
  return jobs;
}

// It is some milliseconds, and was jobs times jobs times nodes: two minutes of this.
TEST(LongQueueTest, AnEventTakesLittleTime) {
  const FakeStore store;
  const absl::Time now = absl::UnixEpoch() + absl::Hours(1);
  Coordinator coordinator(CoordinatorOptions(), QueuedJobs(), &store, now);
  const absl::Time start = absl::Now();
  for (int i = 0; i < kNumNodes - 1; ++i) {
    coordinator.Step(AgentRegistered{.info = {.node = NodeId(absl::StrCat("node-", i)),
                                              .instance = "one",
                                              .address = "a:1",
                                              .device_kind = "cpu",
                                              .num_devices = 1}},
                     now);
  }
  EXPECT_EQ(std::ssize(coordinator.jobs()), kNumJobs);
  EXPECT_LT(absl::Now() - start, absl::Seconds(20)) << "for " << kNumNodes - 1 << " events";
}

TEST(LongQueueTest, ThereIsAnEndToIt) {
  const FakeStore store;
  const absl::Time now = absl::UnixEpoch() + absl::Hours(1);
  CoordinatorOptions options;
  options.max_jobs = kNumJobs + 1;
  Coordinator coordinator(options, QueuedJobs(), &store, now);
  const auto submit = [&](const std::string& name) {
    auto request = std::make_shared<JobRequest>();
    request->name = name;
    request->request_id = RequestId(absl::StrCat("request-", name));
    request->world_size = 1;
    return coordinator.Step(JobSubmitted{.job = JobId(name), .request = request}, now);
  };
  EXPECT_THAT(submit("last").status, IsOk());
  EXPECT_TRUE(submit("last").was_duplicate);
  EXPECT_THAT(submit("too-many").status,
              IsError(absl::StatusCode::kResourceExhausted, HasSubstr("2001 jobs wait or run")));
  coordinator.Step(CancelRequested{.job = JobId("last")}, now);
  EXPECT_THAT(submit("next").status, IsOk());
}

}  // namespace
}  // namespace autosp
