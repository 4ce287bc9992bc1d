#include "server/service/metrics_recorder.h"

#include <memory>
#include <utility>

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

// What a node that ends has left is neither free nor there.
TEST(MetricsRecorderTest, NodesThatEndAreCountedApart) {
  MetricRegistry registry(kCoordinatorMetrics);
  MetricsRecorder recorder(registry);
  Coordinator coordinator(CoordinatorOptions(), {}, nullptr, kNow);
  for (const char* node : {"a", "b"}) {
    const AgentInfo info{
        .node = NodeId(node), .instance = node, .device_kind = "cpu", .num_devices = 3};
    coordinator.Step(AgentRegistered{.info = info, .is_ending = info.node == NodeId("b")}, kNow);
  }
  recorder.RecordState(coordinator);
  const std::string text = registry.Render();
  for (const char* series :
       {"autosp_nodes{state=\"ready\"} 1\n", "autosp_nodes{state=\"ending\"} 1\n",
        "autosp_devices{state=\"free\"} 3\n", "autosp_devices{state=\"taken\"} 0\n"}) {
    EXPECT_THAT(text, HasSubstr(series));
  }
}

Decision StepOf(double model_flops, double peak_flops, double seconds) {
  auto request = std::make_shared<JobRequest>();
  request->world_size = 4;
  request->model_flops = model_flops;
  request->peak_flops_per_second = peak_flops;
  Job job;
  job.id = JobId("job-a");
  job.request = std::move(request);
  job.progress.step_seconds = seconds;
  Decision decision;
  decision.changed_jobs.push_back(job);
  return decision;
}

std::string AfterStep(double model_flops, double peak_flops, double seconds) {
  MetricRegistry registry(kCoordinatorMetrics);
  MetricsRecorder recorder(registry);
  recorder.Record(StepOf(model_flops, peak_flops, seconds), kNow);
  return registry.Render();
}

TEST(MetricsRecorderTest, SaysWhatIsMadeOfTheDevices) {
  const std::string known = AfterStep(/*model_flops=*/800, /*peak_flops=*/500, /*seconds=*/2);
  EXPECT_THAT(known, HasSubstr("autosp_job_model_flops_per_second{job_id=\"job-a\"} 400\n"));
  EXPECT_THAT(known, HasSubstr("autosp_job_model_flops_utilization_ratio{job_id=\"job-a\"} 0.2\n"));
}

TEST(MetricsRecorderTest, DoesNotGuessWhatADeviceCanDo) {
  const std::string of_cpus = AfterStep(800, /*peak_flops=*/0, 2);
  EXPECT_THAT(of_cpus, HasSubstr("autosp_job_model_flops_per_second{job_id=\"job-a\"} 400\n"));
  EXPECT_THAT(of_cpus, Not(HasSubstr("autosp_job_model_flops_utilization_ratio{")));
  // Before the first step, and of a job that was stored before operations were counted.
  EXPECT_THAT(AfterStep(800, 500, /*seconds=*/0), Not(HasSubstr("flops_per_second{")));
  EXPECT_THAT(AfterStep(/*model_flops=*/0, 500, 2), Not(HasSubstr("flops_per_second{")));
}

}  // namespace
}  // namespace autosp
