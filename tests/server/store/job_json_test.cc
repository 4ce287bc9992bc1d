#include "server/store/job_json.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"
#include "tests/server/store/job_fixture.h"

namespace autosp {
namespace {

using testing::HasSubstr;

// Every stored field away from its default, so that a forgotten one is noticed.
Job FullJob() {
  Job job = MakeJob("j1");
  job.state = JobState::kStopping;
  job.pending = PendingReason{.code = PendingReason::Code::kBehindJob,
                              .message = "waits",
                              .devices_needed = 1,
                              .devices_free = 2,
                              .devices_total = 3,
                              .nodes_registered = 4,
                              .queue_position = 5,
                              .blocking_job = JobId("j0")};
  job.cause = FailureCause{.kind = FailureCause::Kind::kHung,
                           .message = "no step",
                           .rank = Rank(1),
                           .node = NodeId("a"),
                           .last_step = 7,
                           .generation = Generation(2),
                           .log_lines = {"one", "two"},
                           .status_code = 8,
                           .instruction = "%1 = call aten::mm",
                           .time = absl::FromUnixSeconds(99),
                           .is_echo = true};
  job.generation = Generation(2);
  job.revision = 3;
  job.last_sequence = 4;
  job.num_failed_starts = 1;
  job.restarts = {.used = 1, .total = 4, .best_checkpoint_step = 6, .last_reason = "a rank died"};
  job.is_verified = true;
  job.verification = VerificationNote{.outcome = VerificationNote::Outcome::kKnown,
                                      .digest = "d1",
                                      .result = {.is_equal = true,
                                                 .worst = "loss",
                                                 .error = 1e-7,
                                                 .bound = 1e-5,
                                                 .num_gradients = 3,
                                                 .seconds = 1.5},
                                      .known_from = JobId("j0")};
  Attempt& attempt = job.attempt.emplace();
  attempt.generation = Generation(2);
  attempt.kind = AttemptKind::kVerification;
  attempt.outcome = AttemptOutcome::kFault;
  attempt.is_committed = true;
  attempt.has_begun = attempt.has_stepped = true;
  attempt.checkpoint_noted = 6;
  attempt.nodes = {{.node = NodeId("a"), .agent_instance = "a1", .phase = NodePhase::kCommitted}};
  attempt.ranks = {{.node = NodeId("a"),
                    .local_rank = 1,
                    .device_index = 2,
                    .state = RankState::kFailed,
                    .pid = 77,
                    .last_step = 7}};
  job.last_ranks = attempt.ranks;
  job.NotePlace(job.generation, attempt.ranks);
  job.progress.last_step = 7;
  job.progress.first_loss = 3.5;
  job.progress.last_loss = 2.25;
  job.progress.last_validation_loss = 2.5;
  job.progress.step_seconds = 0.5;
  job.progress.tokens_of_last_step = 64;
  job.progress.tokens_total = 448;
  job.progress.peak_bytes = {{"device", 1 << 20}};
  job.progress.last_step_time = absl::FromUnixSeconds(98);
  job.progress.checkpoint_step = 6;
  job.progress.checkpoint_path = "/out/checkpoints/step-00000006";
  job.progress.num_failed_checkpoints = 2;
  job.outputs = {{.kind = "weights", .path = "/out/w", .sha256 = "ff", .size_bytes = 9}};
  job.start_time = absl::FromUnixSeconds(50);
  job.end_time = absl::FromUnixSeconds(100);
  return job;
}

TEST(JobJson, KeepsTheNodesOfAttempts) {
  Job job = MakeJob("j1");
  const std::vector<RankPart> ranks = {
      {.node = NodeId("a")}, {.node = NodeId("a")}, {.node = NodeId("b")}};
  for (int64_t i = 1; i <= static_cast<int64_t>(kMaxPlaces) + 1; ++i) {
    job.NotePlace(Generation(i), ranks);
  }
  const absl::StatusOr<Job> read = JobFromJson(JobToJson(job));
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->places, job.places);
  EXPECT_EQ(read->FindPlace(Generation(1)), nullptr) << "it is forgotten";
  const AttemptPlace* place = read->FindPlace(Generation(2));
  ASSERT_NE(place, nullptr);
  EXPECT_EQ(place->NodeOf(Rank(1))->value(), "a");
  EXPECT_EQ(place->NodeOf(Rank(2))->value(), "b");
  EXPECT_EQ(place->NodeOf(Rank(3)), nullptr);
}

// As versions that did not keep them have stored it.
TEST(JobJson, TheLastAttemptOfAnOldJobHasItsNode) {
  Job job = MakeJob("j1");
  job.generation = Generation(3);
  job.last_ranks = {{.node = NodeId("a")}};
  const absl::StatusOr<Job> read = JobFromJson(JobToJson(job));
  ASSERT_THAT(read, IsOk());
  ASSERT_NE(read->FindPlace(Generation(3)), nullptr);
  EXPECT_EQ(read->FindPlace(Generation(3))->NodeOf(Rank(0))->value(), "a");
}

// As versions that did not know have stored it.
TEST(JobJson, AnOldJobThatHadAnAttemptMayHaveTrained) {
  Job job = MakeJob("j1");
  job.generation = Generation(1);
  EXPECT_FALSE(JobFromJson(JobToJson(job))->may_have_trained) << "it was verified, say";
  std::string old = JobToJson(job);
  const std::string key = "\"may_have_trained\"";
  ASSERT_THAT(old, HasSubstr(key));
  old.replace(old.find(key), key.size(), "\"unknown\"");
  EXPECT_TRUE(JobFromJson(old)->may_have_trained);
}

TEST(JobJson, KeepsEveryField) {
  const Job job = FullJob();
  ASSERT_OK_AND_ASSIGN(const Job read, JobFromJson(JobToJson(job)));
  EXPECT_EQ(JobToJson(read), JobToJson(job));
  EXPECT_EQ(*read.request, *job.request);
  EXPECT_EQ(read.pending, job.pending);
  EXPECT_EQ(read.cause, job.cause);
  EXPECT_EQ(read.attempt->ranks, job.attempt->ranks);
  EXPECT_EQ(read.attempt->nodes[0].agent_instance, "a1");
  EXPECT_EQ(read.attempt->nodes[0].phase, NodePhase::kCommitted);
  EXPECT_TRUE(read.attempt->is_committed);
  EXPECT_EQ(read.attempt->outcome, AttemptOutcome::kFault);
  EXPECT_EQ(read.attempt->kind, AttemptKind::kVerification);
  EXPECT_TRUE(read.is_verified);
  EXPECT_EQ(read.verification, job.verification);
  EXPECT_EQ(read.last_ranks, job.last_ranks);
  EXPECT_EQ(read.progress, job.progress);
  EXPECT_EQ(read.outputs, job.outputs);
  EXPECT_EQ(read.state, job.state);
  EXPECT_EQ(read.generation, job.generation);
  EXPECT_EQ(read.num_failed_starts, 1);
  EXPECT_EQ(read.restarts, job.restarts);
  EXPECT_TRUE(read.attempt->has_begun);
  EXPECT_TRUE(read.attempt->has_stepped);
  EXPECT_EQ(read.attempt->checkpoint_noted, 6);
  EXPECT_EQ(read.start_time, job.start_time);
  EXPECT_EQ(read.end_time, job.end_time);
}

TEST(JobJson, KeepsTimesThatHaveNotCome) {
  ASSERT_OK_AND_ASSIGN(const Job read, JobFromJson(JobToJson(MakeJob("j1"))));
  EXPECT_EQ(read.start_time, absl::InfiniteFuture());
  EXPECT_EQ(read.progress.last_step_time, absl::InfinitePast());
}

TEST(JobJson, KeepsLossesThatAreNoNumbers) {
  Job job = MakeJob("j1");
  job.progress.last_loss = std::nan("");
  job.progress.first_loss = -INFINITY;
  ASSERT_OK_AND_ASSIGN(const Job read, JobFromJson(JobToJson(job)));
  EXPECT_TRUE(std::isnan(read.progress.last_loss));
  EXPECT_EQ(read.progress.first_loss, -INFINITY);
}

TEST(JobJson, TakesLogLinesThatAreNotUtf8) {
  Job job = MakeJob("j1");
  job.reason = "bad \xff byte";
  ASSERT_OK_AND_ASSIGN(const Job read, JobFromJson(JobToJson(job)));
  EXPECT_THAT(read.reason, HasSubstr("bad "));
}

TEST(JobJson, RefusesWhatIsDamaged) {
  const std::string good = JobToJson(FullJob());
  for (const std::string& bad :
       {std::string(), std::string("[]"), std::string("{}"), good.substr(0, good.size() / 2)}) {
    EXPECT_THAT(JobFromJson(bad), IsError(absl::StatusCode::kDataLoss, HasSubstr("stored job")));
    EXPECT_THAT(HistoryEntryFromJson(bad),
                IsError(absl::StatusCode::kDataLoss, HasSubstr("stored history entry")));
  }
  std::string unknown_state = good;
  unknown_state.replace(unknown_state.find("stopping"), 8, "dreaming");
  EXPECT_THAT(JobFromJson(unknown_state),
              IsError(absl::StatusCode::kDataLoss, HasSubstr("dreaming")));
}

TEST(HistoryEntryJson, KeepsSteps) {
  StepDone step;
  step.report.step = 3;
  step.report.loss = 1.5;
  step.report.tokens = 64;
  step.report.step_seconds = 0.25;
  step.report.learning_rate = 1e-3;
  step.report.grad_norm = 2.0;
  step.report.memory = {{.account = "device", .current_bytes = 1, .peak_bytes = 2}};
  step.report.collectives = {
      {.kind = "all_to_all", .phase = "forward", .calls = 4, .bytes_received = 5, .seconds = 0.5}};
  step.slowest_rank = Rank(1);
  const HistoryEntry entry{.job = JobId("j1"),
                           .sequence = 9,
                           .time = absl::FromUnixSeconds(1),
                           .generation = Generation(2),
                           .what = step};
  EXPECT_THAT(HistoryEntryFromJson(HistoryEntryToJson(entry)), IsOkAndHolds(entry));
}

}  // namespace
}  // namespace autosp
