#include "client/coordinator_client.h"

#include <thread>

#include "common/error_info.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_coordinator.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

CoordinatorClientOptions Quick() {
  CoordinatorClientOptions options;
  options.first_pause = absl::Milliseconds(20);
  options.restart_patience = absl::Milliseconds(500);
  return options;
}

TEST(CoordinatorClient, TriesAgainWithTheSameRequestId) {
  FakeCoordinator server;
  server.Change([](auto& answers) { answers.num_unavailable = 2; });
  CoordinatorClient client(server.address(), Quick());
  EXPECT_THAT(client.SubmitJob({}), IsOk());
  const std::vector<v1::SubmitJobRequest> submissions = server.Get().submissions;
  ASSERT_EQ(submissions.size(), 3u);
  EXPECT_FALSE(submissions[0].request_id().empty());
  EXPECT_EQ(submissions[0].request_id(), submissions[2].request_id());
}

TEST(CoordinatorClient, GivesUpWithWhatToDo) {
  FakeCoordinator server;
  server.Change([](auto& answers) { answers.num_unavailable = 100; });
  CoordinatorClient client(server.address(), Quick());
  EXPECT_THAT(client.GetJob("job-1"), IsError(absl::StatusCode::kUnavailable,
                                              HasSubstr("is it running? --server names another")));
  EXPECT_EQ(server.Get().num_turned_away, 5);
}

// The first try is refused by the port. Later ones must look again, not repeat what it was told.
TEST(CoordinatorClient, FindsACoordinatorThatStartsMeanwhile) {
  FakeCoordinator server;
  server.Stop();
  CoordinatorClientOptions options;
  options.first_pause = absl::Milliseconds(400);
  CoordinatorClient client(server.address(), options);
  std::thread starter([&] {
    absl::SleepFor(absl::Milliseconds(200));
    server.Restart();
  });
  EXPECT_THAT(client.SubmitJob({}), IsOk());
  starter.join();
}

// With more tries than it has, since one that restarts takes its time.
TEST(CoordinatorClient, WaitsForTheNextWhereOneShutsDown) {
  FakeCoordinator server;
  server.Change([](auto& answers) { answers.num_shutting_down = 8; });
  CoordinatorClientOptions options = Quick();
  options.max_pause = options.first_pause;
  options.restart_patience = absl::Seconds(20);
  CoordinatorClient client(server.address(), options);
  EXPECT_THAT(client.SubmitJob({}), IsOk());
  const std::vector<v1::SubmitJobRequest> submissions = server.Get().submissions;
  ASSERT_EQ(submissions.size(), 9u);
  EXPECT_EQ(submissions.front().request_id(), submissions.back().request_id());
}

TEST(CoordinatorClient, DoesNotWaitForeverForTheNext) {
  FakeCoordinator server;
  server.Change([](auto& answers) { answers.num_shutting_down = 1'000'000; });
  CoordinatorClientOptions options = Quick();
  options.restart_patience = absl::Milliseconds(100);
  CoordinatorClient client(server.address(), options);
  std::thread stopper([&] {
    while (server.Get().submissions.empty()) absl::SleepFor(absl::Milliseconds(5));
    server.Stop();
  });
  EXPECT_THAT(client.SubmitJob({}),
              IsError(absl::StatusCode::kUnavailable, HasSubstr("is it running?")));
  stopper.join();
}

TEST(CoordinatorClient, DoesNotTryAgainWhatWasRefused) {
  FakeCoordinator server;
  CoordinatorClient client(server.address(), Quick());
  const auto job = client.GetJob("nope");
  EXPECT_THAT(job, IsError(absl::StatusCode::kNotFound, "job nope does not exist"));
  EXPECT_EQ(GetErrorInfo(job.status()).reason, "JOB_NOT_FOUND");
}

// The coordinator is there: to say that it is not would send the user looking for it.
TEST(CoordinatorClient, PassesOnThatTheCoordinatorIsBusy) {
  FakeCoordinator server;
  server.Change([](auto& answers) { answers.is_busy = true; });
  CoordinatorClient client(server.address(), Quick());
  const auto submitted = client.SubmitJob({});
  EXPECT_THAT(submitted, IsError(absl::StatusCode::kUnavailable,
                                 "the coordinator is still compiling other jobs"));
  EXPECT_EQ(GetErrorInfo(submitted.status()).remedy, "submit again later");
  EXPECT_EQ(server.Get().submissions.size(), 1u);
}

TEST(CoordinatorClient, BreaksOffShortCallsToo) {
  FakeCoordinator server;
  server.Change([](auto& answers) { answers.hangs = true; });
  CoordinatorClient client(server.address(), Quick());
  std::thread canceller([&] {
    while (server.Get().num_hanging == 0) absl::SleepFor(absl::Milliseconds(5));
    client.CancelCalls();
  });
  EXPECT_THAT(client.GetJob("job-1"), IsError(absl::StatusCode::kCancelled, "interrupted"));
  canceller.join();
}

TEST(CoordinatorClient, ReadsEveryPageUpToTheLimit) {
  FakeCoordinator server;
  server.Change([](auto& answers) {
    for (const char* id : {"a", "b", "c", "d", "e"}) answers.jobs[id].set_job_id(id);
  });
  CoordinatorClient client(server.address(), Quick());
  ASSERT_OK_AND_ASSIGN(const std::vector<v1::Job> all, client.ListJobs({}, 50));
  EXPECT_EQ(all.size(), 5u);
  ASSERT_OK_AND_ASSIGN(const std::vector<v1::Job> some, client.ListJobs({}, 4));
  EXPECT_EQ(some.size(), 4u);
}

std::vector<int64_t> SequencesOf(CoordinatorClient& client, absl::Status& status) {
  std::vector<int64_t> sequences;
  status = client.WatchJob(
      "job-1", [&sequences](const v1::JobEvent& event) { sequences.push_back(event.sequence()); });
  return sequences;
}

TEST(WatchJob, GoesOnWhereTheStreamBroke) {
  FakeCoordinator server;
  server.Change([](auto& answers) {
    for (int i = 1; i <= 5; ++i) answers.events.push_back(StepEvent(i, i, 1.0));
    answers.events_per_stream = 2;
  });
  CoordinatorClient client(server.address(), Quick());
  absl::Status status;
  EXPECT_THAT(SequencesOf(client, status), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(status, IsOk());
}

TEST(WatchJob, WaitsForACoordinatorThatRestarts) {
  FakeCoordinator server;
  server.Change([](auto& answers) {
    for (int i = 1; i <= 3; ++i) answers.events.push_back(StepEvent(i, i, 1.0));
    answers.hangs_after_events = true;
  });
  CoordinatorClientOptions options = Quick();
  options.restart_patience = absl::Seconds(20);
  CoordinatorClient client(server.address(), options);
  absl::Status status;
  std::vector<int64_t> sequences;
  std::thread watcher([&] { sequences = SequencesOf(client, status); });
  absl::SleepFor(absl::Milliseconds(100));
  server.Stop();
  server.Change([](auto& answers) {
    answers.events.push_back(StepEvent(4, 4, 1.0));
    answers.hangs_after_events = false;
  });
  absl::SleepFor(absl::Milliseconds(100));
  server.Restart();
  watcher.join();
  EXPECT_THAT(status, IsOk());
  EXPECT_THAT(sequences, ElementsAre(1, 2, 3, 4));
}

TEST(WatchJob, LosesPatience) {
  FakeCoordinator server;
  CoordinatorClient client(server.address(), Quick());
  server.Stop();
  absl::Status status;
  SequencesOf(client, status);
  EXPECT_THAT(status, IsError(absl::StatusCode::kUnavailable, HasSubstr("watch it again later")));
}

TEST(WatchJob, IsBrokenOffFromAnotherThread) {
  FakeCoordinator server;
  server.Change([](auto& answers) { answers.hangs_after_events = true; });
  CoordinatorClient client(server.address(), Quick());
  std::thread canceller([&client] {
    absl::SleepFor(absl::Milliseconds(50));
    client.CancelCalls();
  });
  absl::Status status;
  SequencesOf(client, status);
  canceller.join();
  EXPECT_THAT(status, IsError(absl::StatusCode::kCancelled, "interrupted"));
  SequencesOf(client, status);  // One that begins later does not even start.
  EXPECT_THAT(status, IsError(absl::StatusCode::kCancelled, "interrupted"));
}

}  // namespace
}  // namespace autosp
