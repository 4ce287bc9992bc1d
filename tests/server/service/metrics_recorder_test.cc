#include "server/service/metrics_recorder.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "server/metrics.h"
#include "server/service/limits.h"

namespace autosp {
namespace {

using testing::HasSubstr;
using testing::Not;

const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

Decision EndOf(const std::string& job, FailureCause::Kind kind) {
  StateChange change;
  change.from = JobState::kStopping;
  change.to = JobState::kFailed;
  change.cause.emplace().kind = kind;
  HistoryEntry entry;
  entry.job = JobId(job);
  entry.time = kNow;
  entry.what = change;
  Decision decision;
  decision.history.push_back(entry);
  return decision;
}

Coordinator WithJob(const std::string& id, JobState state) {
  Job job;
  job.id = JobId(id);
  job.state = state;
  return Coordinator(CoordinatorOptions(), {job}, nullptr, kNow);
}

// An increase can be seen only in a series that was there before it.
TEST(MetricsRecorderTest, WhatAlertsWatchExistsFromTheStart) {
  MetricRegistry registry(kCoordinatorMetrics);
  MetricsRecorder recorder(registry);
  const std::string text = registry.Render();
  for (const char* series :
       {"autosp_job_faults_total{kind=\"hung\"}", "autosp_job_faults_total{kind=\"agent_lost\"}",
        "autosp_job_faults_total{kind=\"not_reattached\"}",
        "autosp_job_transitions_total{from=\"stopping\",to=\"queued\"}",
        "autosp_store_write_duration_seconds_count{result=\"failed\"}"}) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat(series, " 0\n")));
  }
  EXPECT_THAT(text, Not(HasSubstr("kind=\"cancelled\""))) << "a cancelled job has not failed";

  recorder.Record(EndOf("job-a", FailureCause::Kind::kHung), kNow);
  EXPECT_THAT(registry.Render(), HasSubstr("autosp_job_faults_total{kind=\"hung\"} 1\n"));
}

TEST(MetricsRecorderTest, CountsVerificationsAndTimesThoseWithAResult) {
  MetricRegistry registry(kCoordinatorMetrics);
  MetricsRecorder recorder(registry);
  EXPECT_THAT(registry.Render(), HasSubstr("autosp_verifications_total{outcome=\"differs\"} 0\n"));
  for (const VerificationNote::Outcome outcome :
       {VerificationNote::Outcome::kEqual, VerificationNote::Outcome::kDiffers,
        VerificationNote::Outcome::kNoResult, VerificationNote::Outcome::kKnown}) {
    Decision decision;
    decision.history.push_back(
        {.job = JobId("job-a"),
         .time = kNow,
         .what = VerificationNote{.outcome = outcome, .result = {.seconds = 2}}});
    recorder.Record(decision, kNow);
  }
  const std::string text = registry.Render();
  for (const char* outcome : {"equal", "differs", "no_result", "known"}) {
    EXPECT_THAT(
        text, HasSubstr(absl::StrCat("autosp_verifications_total{outcome=\"", outcome, "\"} 1\n")));
  }
  EXPECT_THAT(text, HasSubstr("autosp_verification_seconds_count 2\n"));
  EXPECT_THAT(text, HasSubstr("autosp_verification_seconds_sum 4\n"));
}

TEST(MetricsRecorderTest, SaysWhichJobsRunUntilTheyHaveLeft) {
  MetricRegistry registry(kCoordinatorMetrics);
  MetricsRecorder recorder(registry);
  recorder.RecordState(WithJob("job-a", JobState::kQueued));
  EXPECT_THAT(registry.Render(), HasSubstr("autosp_job_running{job_id=\"job-a\"} 0\n"));
  // As after a restart of the coordinator, with no change of state to be seen.
  recorder.RecordState(WithJob("job-a", JobState::kRunning));
  EXPECT_THAT(registry.Render(), HasSubstr("autosp_job_running{job_id=\"job-a\"} 1\n"));
  recorder.Record(EndOf("job-a", FailureCause::Kind::kRankLost), kNow);
  EXPECT_THAT(registry.Render(), HasSubstr("autosp_job_running{job_id=\"job-a\"} 0\n"));
  // The job is still in the coordinator's memory when its series have gone.
  recorder.Prune(kNow + kMetricsRetention);
  recorder.RecordState(WithJob("job-a", JobState::kFailed));
  EXPECT_THAT(registry.Render(), Not(HasSubstr("job-a")));
}

}  // namespace
}  // namespace autosp
