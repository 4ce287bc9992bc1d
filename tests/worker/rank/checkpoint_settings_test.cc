#include "worker/rank/checkpoint_settings.h"

#include <functional>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using testing::HasSubstr;

JobSpec Job() {
  JobSpec job;
  job.training.seq_len = 64;
  job.training.global_batch_size = 2;
  job.training.steps = 20;
  job.data.inputs["labels"] = {.source = InputSource::kNextTokens};
  return job;
}

std::vector<ManifestTensor> Tensors() {
  return {{.name = "adamw.exp_avg:w", .dtype = DType::kF32, .shape = {4, 3}},
          {.name = "w", .dtype = DType::kF32, .shape = {4, 3}}};
}

CheckpointManifest Saved() {
  return {.step = 10, .settings = CheckpointSettings(Job(), 1000), .tensors = Tensors()};
}

struct Case {
  std::string name;
  std::function<void(JobSpec&, std::vector<ManifestTensor>&)> change;
  std::string message;  // empty: the job may go on
};

class CheckpointSettingsTest : public testing::TestWithParam<Case> {};

TEST_P(CheckpointSettingsTest, SaysWhetherAJobMayGoOn) {
  JobSpec job = Job();
  std::vector<ManifestTensor> tensors = Tensors();
  GetParam().change(job, tensors);
  const absl::Status status =
      CheckMatches(Saved(), CheckpointSettings(job, 1000), tensors, job.training.steps);
  if (GetParam().message.empty()) {
    EXPECT_THAT(status, IsOk());
    return;
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
  EXPECT_THAT(std::string(status.message()), HasSubstr("checkpoint.resume"));
}

using Wanted = std::vector<ManifestTensor>;

INSTANTIATE_TEST_SUITE_P(
    All, CheckpointSettingsTest,
    testing::Values(
        Case{"Same", [](JobSpec&, Wanted&) {}, ""},
        Case{"LearningRate", [](JobSpec& job, Wanted&) { job.training.optimizer.lr = 1; }, ""},
        Case{"Mesh", [](JobSpec& job, Wanted&) { job.parallelism.ranks = 8; }, ""},
        Case{"MoreSteps", [](JobSpec& job, Wanted&) { job.training.steps = 99; }, ""},
        Case{"NothingLeft", [](JobSpec& job, Wanted&) { job.training.steps = 10; }, ""},
        Case{"FewerSteps", [](JobSpec& job, Wanted&) { job.training.steps = 9; },
             "it is of step 10, and training.steps is 9"},
        Case{"Seed", [](JobSpec& job, Wanted&) { job.training.seed = 3; },
             "training.seed 0, and this job has 3"},
        Case{"Batch", [](JobSpec& job, Wanted&) { job.training.global_batch_size = 4; },
             "training.global_batch_size 2, and this job has 4"},
        Case{"Length", [](JobSpec& job, Wanted&) { job.training.seq_len = 32; },
             "training.seq_len 64, and this job has 32"},
        Case{"Order", [](JobSpec& job, Wanted&) { job.data.shuffle_seed = 1; },
             "data.shuffle_seed 0, and this job has 1"},
        Case{"HeldOut", [](JobSpec& job, Wanted&) { job.data.validation.fraction = 0.5; },
             "data.validation.fraction 0, and this job has 0.5"},
        Case{"Inputs", [](JobSpec& job, Wanted&) { job.data.inputs.clear(); },
             "data.inputs labels: next_tokens [batch, sequence], and this job has none"},
        Case{"AnotherType", [](JobSpec&, Wanted& tensors) { tensors[1].dtype = DType::kBF16; },
             "w is f32[4, 3] in it, and bf16[4, 3] in this job"},
        Case{"AnotherShape",
             [](JobSpec&, Wanted& tensors) {
               tensors[1].shape = {5, 3};
             },
             "w is f32[4, 3] in it, and f32[5, 3] in this job"},
        Case{"AnotherOptimizer", [](JobSpec&, Wanted& tensors) { tensors.erase(tensors.begin()); },
             "this job has no adamw.exp_avg:w"},
        Case{"AnotherModel", [](JobSpec&, Wanted& tensors) { tensors[1].name = "x"; },
             "it has no x"}),
    [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

TEST(CheckpointSettings, MoreDataIsOtherData) {
  const absl::Status status = CheckMatches(Saved(), CheckpointSettings(Job(), 1001), Tensors(), 20);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("data.files 1000 tokens, and this job has 1001 tokens"));
}

}  // namespace
}  // namespace autosp
