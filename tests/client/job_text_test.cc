#include "client/job_text.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'700'001'000);

v1::Job RunningJob() {
  v1::Job job;
  job.set_job_id("job-1");
  job.set_name("llama");
  job.set_state(v1::JOB_STATE_RUNNING);
  job.set_reason("all 2 ranks run");
  job.set_generation(1);
  job.set_world_size(2);
  job.set_output_directory("/out");
  job.mutable_create_time()->set_seconds(1'700'000'000);
  job.mutable_start_time()->set_seconds(1'700'000'010);
  v1::JobProgress& progress = *job.mutable_progress();
  progress.set_last_step(10);
  progress.set_num_steps(200);
  progress.set_first_loss(5.5);
  progress.set_last_loss(3.25);
  progress.set_tokens_per_second(1234);
  (*progress.mutable_peak_bytes())["device"] = 99 << 20;
  job.mutable_plan()->mutable_mesh()->set_dp_size(1);
  job.mutable_plan()->mutable_mesh()->set_ulysses_size(2);
  (*job.mutable_plan()->mutable_predicted_peak_bytes())["device"] = 100 << 20;
  return job;
}

v1::Job FailedJob() {
  v1::Job job = RunningJob();
  job.set_state(v1::JOB_STATE_FAILED);
  job.mutable_end_time()->set_seconds(1'700'000'090);
  v1::FailureCause& cause = *job.mutable_cause();
  cause.set_rank(1);
  cause.set_message("rank 1 on node local was killed by signal 9 after step 10");
  cause.add_log_lines("step 10 done");
  cause.add_log_lines("step 11");
  return job;
}

ProgressTracker TrackerOf(const v1::Job& job) {
  ProgressTracker tracker(job.progress().num_steps());
  for (int step = 1; step <= 10; ++step) {
    v1::StepReport report;
    report.set_step(step);
    report.set_loss(step == 1 ? 5.5 : 3.25);
    report.set_tokens(1024);
    report.set_step_seconds(1.0);
    tracker.Add(report, kNow);
  }
  return tracker;
}

TEST(JobPage, ShowsWhatWouldBeDoneAgain) {
  v1::Job job = RunningJob();
  EXPECT_EQ(JobPage(job, kNow).find("restarts"), std::string::npos);
  EXPECT_EQ(JobPage(job, kNow).find("checkpoint"), std::string::npos);
  job.mutable_progress()->set_checkpoint_step(8);
  job.mutable_progress()->set_checkpoint_path("/out/checkpoints/step-00000008");
  job.mutable_progress()->set_checkpoints_failed(2);
  job.mutable_restarts()->set_used(1);
  job.mutable_restarts()->set_max(3);
  job.mutable_restarts()->set_total(4);
  job.mutable_restarts()->set_last_reason("rank 1 was killed");
  const std::string page = JobPage(job, kNow);
  for (const char* words :
       {"checkpoint    step 8, /out/checkpoints/step-00000008",
        "not written   2 checkpoints since then",
        "restarts      1 of 3 since the last progress, 4 in all; the last: rank 1 was killed"}) {
    EXPECT_NE(page.find(words), std::string::npos) << words << "\n" << page;
  }
}

TEST(CheckpointLine, SaysWhatHasBecomeOfIt) {
  v1::CheckpointReport checkpoint;
  checkpoint.set_step(40);
  checkpoint.set_path("/c/step-00000040");
  checkpoint.set_size_bytes(3 << 20);
  checkpoint.set_seconds(0.25);
  checkpoint.set_event(v1::CheckpointReport::EVENT_COMMITTED);
  EXPECT_EQ(CheckpointLine(checkpoint), "checkpoint of step 40: 3.00 MiB in 0.25 s");
  checkpoint.set_event(v1::CheckpointReport::EVENT_RESUMED);
  EXPECT_EQ(CheckpointLine(checkpoint), "resumed at step 41 from /c/step-00000040");
  checkpoint.set_message("the disk is full");
  checkpoint.set_event(v1::CheckpointReport::EVENT_NOT_WRITTEN);
  EXPECT_EQ(CheckpointLine(checkpoint),
            "checkpoint of step 40 was not written, training goes on: the disk is full");
  checkpoint.set_event(v1::CheckpointReport::EVENT_SKIPPED);
  EXPECT_EQ(CheckpointLine(checkpoint), "skipped /c/step-00000040: the disk is full");
  checkpoint.set_event(v1::CheckpointReport::EVENT_RESUMED);
  checkpoint.set_step(0);
  EXPECT_EQ(CheckpointLine(checkpoint), "begins at the first step: the disk is full");
}

TEST(JobTable, HasARowPerJob) {
  v1::Job queued;
  queued.set_job_id("job-2");
  queued.set_name("bert");
  queued.set_state(v1::JOB_STATE_QUEUED);
  queued.set_world_size(4);
  queued.set_reason("accepted");
  queued.mutable_pending()->set_message("needs 4 devices; 2 of 2 are free");
  queued.mutable_progress()->set_num_steps(50);
  queued.mutable_create_time()->set_seconds(1'700'000'940);
  EXPECT_EQ(
      JobTable({queued, RunningJob()}, kNow),
      "JOB    NAME   STATE      STEP    LOSS  RANKS     AGE  REASON\n"
      "job-2  bert   queued     0/50       -      4   1m00s  needs 4 devices; 2 of 2 are free\n"
      "job-1  llama  running  10/200  3.2500      2  16m40s  all 2 ranks run\n");
  EXPECT_EQ(JobTable({}, kNow), "JOB  NAME  STATE  STEP  LOSS  RANKS  AGE  REASON\n");
}

TEST(NodeTable, HasARowPerNode) {
  v1::Node node;
  node.set_node_id("local");
  node.set_state(v1::Node::STATE_READY);
  node.set_device_kind(v1::DEVICE_KIND_CPU);
  node.set_num_devices(2);
  node.set_num_devices_free(1);
  node.set_device_memory_bytes(int64_t{4} << 30);
  node.set_agent_address("127.0.0.1:7071");
  node.mutable_last_heartbeat_time()->set_seconds(1'700'000'998);
  node.add_attempts()->set_job_id("job-1");
  EXPECT_EQ(NodeTable({node}, kNow),
            "NODE   STATE  KIND  DEVICES  FREE  MEMORY EACH  HEARTBEAT  ADDRESS         JOBS\n"
            "local  ready  cpu         2     1     4.00 GiB     2s ago  127.0.0.1:7071  job-1\n");
}

TEST(JobPage, SaysEverything) {
  v1::Job job = RunningJob();
  v1::RankPlacement& rank = *job.add_ranks();
  rank.set_node_id("local");
  rank.set_state(v1::RANK_STATE_RUNNING);
  rank.set_last_step(10);
  rank.set_pid(4711);
  EXPECT_EQ(JobPage(job, kNow),
            "job job-1 (llama)\n"
            "  state         running\n"
            "  reason        all 2 ranks run\n"
            "  created       16m40s ago\n"
            "  run time      16m30s\n"
            "  attempt       1\n"
            "  ranks         2 (ulysses 2)\n"
            "  step          10/200\n"
            "  loss          5.5000 to 3.2500\n"
            "  throughput    1,234 tokens/s\n"
            "  peak per rank device: predicted 100 MiB, measured 99.0 MiB (-1.0 %)\n"
            "  output        /out\n"
            "\n"
            "RANK  NODE   DEVICE  STATE    STEP   PID\n"
            "   0  local       0  running    10  4711\n");
}

TEST(ClosingSummary, OfSuccessNamesLossesMemoryAndOutputs) {
  v1::Job job = RunningJob();
  job.set_state(v1::JOB_STATE_SUCCEEDED);
  job.mutable_end_time()->set_seconds(1'700'000'090);
  v1::OutputFile& weights = *job.add_outputs();
  weights.set_kind("weights");
  weights.set_path("/out/model.safetensors");
  weights.set_size_bytes(3 << 20);
  EXPECT_EQ(ClosingSummary(job, TrackerOf(job)),
            "job job-1 (llama) succeeded after step 10/200, 1m20s\n"
            "  loss          5.5000 (step 1) to 3.2500 (step 10)\n"
            "  throughput    1,024 tokens/s over 2 ranks, 10,240 tokens\n"
            "  peak per rank device: predicted 100 MiB, measured 99.0 MiB (-1.0 %)\n"
            "  weights       /out/model.safetensors (3.00 MiB)\n");
}

TEST(ClosingSummary, CountsOneRankAsOne) {
  v1::Job job = RunningJob();
  job.set_world_size(1);
  EXPECT_THAT(ClosingSummary(job, TrackerOf(job)), testing::HasSubstr(" over 1 rank, "));
}

TEST(ClosingSummary, OfFailureSaysWhereItsStepsAre) {
  const v1::Job job = FailedJob();
  EXPECT_THAT(ClosingSummary(job, TrackerOf(job)), testing::HasSubstr("  output        /out\n"));
}

TEST(ClosingSummary, OfFailureNamesTheCauseAndTheLastLogLines) {
  EXPECT_EQ(ClosingSummary(FailedJob(), ProgressTracker(200)),
            "job job-1 (llama) failed, 1m20s\n"
            "  peak per rank device: predicted 100 MiB, measured 99.0 MiB (-1.0 %)\n"
            "  cause         rank 1 on node local was killed by signal 9 after step 10\n"
            "  last log lines of rank 1:\n"
            "    step 10 done\n"
            "    step 11\n");
}

}  // namespace
}  // namespace autosp
