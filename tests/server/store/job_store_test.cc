#include "server/store/job_store.h"

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"
#include "tests/server/store/job_fixture.h"

namespace autosp {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class JobStoreTest : public testing::Test {
 protected:
  JobStoreTest() : path_(JoinPath(dir_.path(), "autosp.db")) { Reopen(); }

  void Reopen() {
    store_ = nullptr;
    absl::StatusOr<std::unique_ptr<JobStore>> store = JobStore::Open(path_);
    ASSERT_THAT(store, IsOk());
    store_ = *std::move(store);
  }

  void WriteRaw(const std::string& bytes) {
    store_ = nullptr;
    for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
  }

  TempDir dir_;
  const std::string path_;
  std::unique_ptr<JobStore> store_;
};

TEST_F(JobStoreTest, KeepsJobsInputsAndHistory) {
  Job job = MakeJob("j1");
  const JobInputs inputs{.job_yaml = "version: 1",
                         .files = std::string("\0\1", 2),
                         .plan_summary = "p",
                         .plan_text = "plan",
                         .program_text = "program",
                         .device_budget_bytes = 7};
  ASSERT_THAT(store_->Apply(Change(job, JobState::kQueued), &inputs), IsOk());
  ASSERT_THAT(store_->Apply(Change(job, JobState::kStarting, 2)), IsOk());
  Reopen();
  ASSERT_OK_AND_ASSIGN(const Job read, store_->GetJob(job.id));
  EXPECT_EQ(read.state, JobState::kStarting);
  EXPECT_EQ(read.revision, 2);
  EXPECT_THAT(store_->GetInputs(job.id), IsOkAndHolds(inputs));
  EXPECT_THAT(store_->History(job.id, 0, 10), IsOkAndHolds(SizeIs(3)));
  ASSERT_OK_AND_ASSIGN(const std::vector<HistoryEntry> rest, store_->History(job.id, 2, 10));
  ASSERT_THAT(rest, SizeIs(1));
  EXPECT_EQ(rest[0].sequence, 3);
  EXPECT_THAT(store_->ActiveJobs(), IsOkAndHolds(SizeIs(1)));
}

std::vector<int64_t> StepsOf(const JobStore& store, const JobId& job) {
  std::vector<int64_t> steps;
  const auto entries = store.History(job, 0, 10 * kMaxKeptSteps);
  EXPECT_THAT(entries, IsOk());
  for (const HistoryEntry& entry : *entries) {
    const auto* done = std::get_if<StepDone>(&entry.what);
    if (done != nullptr) steps.push_back(done->report.step);
  }
  return steps;
}

TEST_F(JobStoreTest, ThinsOldStepsOut) {
  Job job = MakeJob("j1"), other = MakeJob("j2");
  ASSERT_THAT(store_->Apply(Change(job, JobState::kQueued)), IsOk());
  ASSERT_THAT(store_->Apply(Change(other, JobState::kQueued)), IsOk());
  ASSERT_THAT(store_->Apply(Change(job, JobState::kRunning, 20)), IsOk());
  ASSERT_THAT(store_->Apply(FinishSteps(other, 1, 50)), IsOk());
  // Each time just before old ones are thinned out, when there are most.
  const int64_t interval = kMaxKeptSteps / 4;
  const int64_t num_steps = 12 * interval - 1 - job.last_sequence;
  for (int64_t last = num_steps - 11 * interval, first = 1; last <= num_steps; last += interval) {
    ASSERT_THAT(store_->Apply(FinishSteps(job, first, last)), IsOk());
    ASSERT_LE(std::ssize(StepsOf(*store_, job.id)), kMaxKeptSteps) << last;
    first = last + 1;
  }
  const std::vector<int64_t> steps = StepsOf(*store_, job.id);
  EXPECT_GE(std::ssize(steps), kMaxKeptSteps / 2);
  EXPECT_EQ(steps.front(), 1);
  for (int64_t back = 0; back < interval; ++back) {
    ASSERT_EQ(*(steps.rbegin() + back), num_steps - back) << "the newest ones are whole";
  }
  for (size_t i = 1; i < steps.size(); ++i) {
    ASSERT_LE(steps[i] - steps[i - 1], 8) << "old ones are spread, after step " << steps[i - 1];
  }
  EXPECT_THAT(StepsOf(*store_, other.id), SizeIs(50)) << "another job is left alone";
  ASSERT_OK_AND_ASSIGN(const std::vector<HistoryEntry> begin, store_->History(job.id, 0, 21));
  for (const HistoryEntry& entry : begin) {
    EXPECT_TRUE(std::holds_alternative<StateChange>(entry.what)) << "states stay";
  }
}

TEST_F(JobStoreTest, KeepsEveryStepOfAShortJob) {
  Job job = MakeJob("j1");
  ASSERT_THAT(store_->Apply(Change(job, JobState::kQueued)), IsOk());
  const int64_t num_steps = kMaxKeptSteps * 3 / 4 - 1;
  ASSERT_THAT(store_->Apply(FinishSteps(job, 1, num_steps)), IsOk());
  EXPECT_THAT(StepsOf(*store_, job.id), SizeIs(num_steps));
}

TEST_F(JobStoreTest, KnowsWhatHasEnded) {
  Job job = MakeJob("j1");
  ASSERT_THAT(store_->Apply(Change(job, JobState::kQueued)), IsOk());
  EXPECT_FALSE(store_->IsFinished(job.id));
  EXPECT_EQ(store_->FindByRequest(RequestId("request-j1")),
            (SubmittedJob{.job = job.id, .request_digest = "digest-j1"}));
  EXPECT_EQ(store_->FindByRequest(RequestId("other")), std::nullopt);
  ASSERT_THAT(store_->Apply(Change(job, JobState::kCancelled)), IsOk());
  EXPECT_TRUE(store_->IsFinished(job.id));
  EXPECT_THAT(store_->ActiveJobs(), IsOkAndHolds(IsEmpty()));
}

TEST_F(JobStoreTest, RefusesAWriteToAnotherRevision) {
  Job job = MakeJob("j1");
  ASSERT_THAT(store_->Apply(Change(job, JobState::kQueued)), IsOk());
  Job other = job;
  ASSERT_THAT(store_->Apply(Change(other, JobState::kStarting)), IsOk());
  EXPECT_THAT(store_->Apply(Change(job, JobState::kCancelled)),
              IsError(absl::StatusCode::kAborted, HasSubstr("not at revision 1")));
  ASSERT_OK_AND_ASSIGN(const Job read, store_->GetJob(job.id));
  EXPECT_EQ(read.state, JobState::kStarting);
  EXPECT_THAT(store_->History(job.id, 0, 10), IsOkAndHolds(SizeIs(2)));
}

TEST_F(JobStoreTest, StoresADecisionWholeOrNotAtAll) {
  Job first = MakeJob("j1");
  ASSERT_THAT(store_->Apply(Change(first, JobState::kQueued)), IsOk());
  Job again = MakeJob("j2");
  Decision both = Change(again, JobState::kQueued);
  Job stale = MakeJob("j1");
  stale.revision = 7;
  both.changed_jobs.push_back(Change(stale, JobState::kFailed).changed_jobs[0]);
  EXPECT_THAT(store_->Apply(both), IsError(absl::StatusCode::kAborted, HasSubstr("j1")));
  EXPECT_THAT(store_->GetJob(again.id), IsError(absl::StatusCode::kNotFound, HasSubstr("j2")));
  // The same decision without the stale part goes through: nothing was left behind.
  both.changed_jobs.pop_back();
  EXPECT_THAT(store_->Apply(both), IsOk());
}

TEST_F(JobStoreTest, RefusesASecondJobOfOneRequest) {
  Job job = MakeJob("j1");
  ASSERT_THAT(store_->Apply(Change(job, JobState::kQueued)), IsOk());
  Job copy = MakeJob("j1");
  copy.id = JobId("j2");
  EXPECT_THAT(store_->Apply(Change(copy, JobState::kQueued)),
              IsError(absl::StatusCode::kAlreadyExists, HasSubstr("request_id")));
}

TEST_F(JobStoreTest, ListsPagesNewestFirst) {
  for (int i = 0; i < 5; ++i) {
    Job job = MakeJob(absl::StrCat("j", i), /*create_seconds=*/i / 2);
    ASSERT_THAT(store_->Apply(Change(job, i == 3 ? JobState::kFailed : JobState::kQueued)), IsOk());
  }
  auto names = [&](const JobPage& page) {
    std::vector<std::string> names;
    const std::vector<Job> jobs = store_->ListJobs(page).value();
    for (const Job& job : jobs) names.push_back(job.id.value());
    return names;
  };
  EXPECT_THAT(names({.limit = 2}), ElementsAre("j4", "j3"));
  EXPECT_THAT(names({.limit = 2, .after = JobId("j3")}), ElementsAre("j2", "j1"));
  EXPECT_THAT(names({.limit = 2, .after = JobId("j1")}), ElementsAre("j0"));
  EXPECT_THAT(names({.limit = 9, .states = {JobState::kFailed}}), ElementsAre("j3"));
}

TEST_F(JobStoreTest, RefusesASecondCoordinator) {
  EXPECT_THAT(JobStore::Open(path_), IsError(absl::StatusCode::kFailedPrecondition,
                                             HasSubstr("in use by another coordinator")));
}

TEST_F(JobStoreTest, RefusesWhatIsNoDatabase) {
  WriteRaw(std::string(5000, 'x'));
  EXPECT_THAT(JobStore::Open(path_),
              IsError(absl::StatusCode::kDataLoss, AllOf(HasSubstr(path_), HasSubstr("damaged"))));
}

TEST_F(JobStoreTest, RefusesADamagedDatabase) {
  for (int i = 0; i < 200; ++i) {
    Job job = MakeJob(absl::StrCat("j", i));
    ASSERT_THAT(store_->Apply(Change(job, JobState::kQueued, 3)), IsOk());
  }
  store_ = nullptr;  // Moves the log into the file.
  const auto size = std::filesystem::file_size(path_);
  std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(size / 2));
  file << std::string(8192, '\xee');
  file.close();
  EXPECT_THAT(JobStore::Open(path_), IsError(absl::StatusCode::kDataLoss, HasSubstr("damaged")));
}

TEST_F(JobStoreTest, RefusesADatabaseOfAnotherProgram) {
  WriteRaw("");
  {
    ASSERT_OK_AND_ASSIGN(SqliteDatabase database, SqliteDatabase::Open(path_));
    ASSERT_THAT(database.Execute("CREATE TABLE theirs (x)"), IsOk());
  }
  EXPECT_THAT(JobStore::Open(path_),
              IsError(absl::StatusCode::kFailedPrecondition, HasSubstr("another program")));
}

Decision Verify(Job& job, VerificationNote::Outcome outcome, const std::string& digest) {
  ++job.revision;
  Decision decision;
  decision.history.push_back({.job = job.id,
                              .sequence = ++job.last_sequence,
                              .time = job.create_time,
                              .what = VerificationNote{.outcome = outcome, .digest = digest}});
  decision.changed_jobs.push_back(job);
  return decision;
}

TEST_F(JobStoreTest, KnowsOnlyPlansThatWereEqual) {
  Job job = MakeJob("j1");
  ASSERT_THAT(store_->Apply(Change(job, JobState::kQueued)), IsOk());
  for (const auto& [outcome, digest] : {std::pair(VerificationNote::Outcome::kEqual, "good"),
                                        std::pair(VerificationNote::Outcome::kDiffers, "wrong"),
                                        std::pair(VerificationNote::Outcome::kNoResult, "lost"),
                                        std::pair(VerificationNote::Outcome::kKnown, "other")}) {
    ASSERT_THAT(store_->Apply(Verify(job, outcome, digest)), IsOk());
  }
  Reopen();
  EXPECT_EQ(store_->FindVerified("good"), JobId("j1"));
  for (const char* digest : {"wrong", "lost", "other", "never heard of"}) {
    EXPECT_EQ(store_->FindVerified(digest), std::nullopt) << digest;
  }
  // A job with `verify: always` has verified the same plan again.
  Job again = MakeJob("j2");
  ASSERT_THAT(store_->Apply(Change(again, JobState::kQueued)), IsOk());
  ASSERT_THAT(store_->Apply(Verify(again, VerificationNote::Outcome::kEqual, "good")), IsOk());
  EXPECT_EQ(store_->FindVerified("good"), JobId("j2"));
}

TEST_F(JobStoreTest, BringsTheFirstSchemaUpToDate) {
  Job job = MakeJob("j1");
  const JobInputs inputs{.job_yaml = "yaml", .program_text = "program"};
  ASSERT_THAT(store_->Apply(Change(job, JobState::kQueued), &inputs), IsOk());
  store_ = nullptr;
  {
    // As version 1 left it.
    ASSERT_OK_AND_ASSIGN(SqliteDatabase database, SqliteDatabase::Open(path_));
    ASSERT_THAT(database.Execute("DROP TABLE verified"), IsOk());
    ASSERT_THAT(database.Execute("ALTER TABLE inputs DROP COLUMN verification"), IsOk());
    ASSERT_THAT(database.Execute("PRAGMA user_version = 1"), IsOk());
  }
  for (int times = 0; times < 2; ++times) {
    Reopen();
    EXPECT_THAT(store_->GetInputs(job.id), IsOkAndHolds(inputs));
    EXPECT_EQ(store_->FindVerified("good"), std::nullopt);
  }
  ASSERT_THAT(store_->Apply(Verify(job, VerificationNote::Outcome::kEqual, "good")), IsOk());
  EXPECT_EQ(store_->FindVerified("good"), job.id);
}

TEST_F(JobStoreTest, RefusesANewerSchema) {
  store_ = nullptr;
  {
    ASSERT_OK_AND_ASSIGN(SqliteDatabase database, SqliteDatabase::Open(path_));
    ASSERT_THAT(database.Execute("PRAGMA user_version = 99"), IsOk());
  }
  EXPECT_THAT(JobStore::Open(path_),
              IsError(absl::StatusCode::kFailedPrecondition, HasSubstr("schema version 99")));
}

TEST_F(JobStoreTest, RefusesAFolderThatIsNotThere) {
  EXPECT_THAT(JobStore::Open(JoinPath(dir_.path(), "nowhere/autosp.db")),
              IsError(absl::StatusCode::kNotFound, HasSubstr("nowhere")));
}

}  // namespace
}  // namespace autosp
