#include "compiler/config/job_yaml.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kSmallest[] = R"(version: 1
kind: Job
model:
  archive: models/llama.pt2
data:
  format: text
  files: [a.txt]
training:
  seq_len: 512
  global_batch_size: 4
  steps: 10
output:
  dir: out
)";

constexpr char kEveryKey[] = R"(version: 1
kind: Job
name: a job
model:
  archive: /m/bert.pt2
  weights: /m/bert.safetensors
  loss_output: 0
  tied: [[embed.weight, head.weight], [norm.weight]]
  frozen: ["embeddings.*"]
  no_decay: ["*.bias", "*norm*"]
data:
  format: tokens
  files: [/d/a.bin, "/d/b: c.bin"]
  dtype: uint32
  shuffle_seed: 7
  validation: {fraction: 0.05, every_steps: 50, batches: 2}
  inputs:
    ids: {from: mlm_tokens}
    targets: {from: mlm_labels, dims: [sequence, batch]}
    bias: {from: zeros, dims: [batch, other, sequence]}
  ignore_index: -1
  pad_token: 3
  mask_token: 103
  mlm_probability: 0.2
training:
  seq_len: 1024
  global_batch_size: 8
  micro_batch_size: 2
  steps: 1000
  seed: 5
  clip_grad_norm: 1.0
  on_nan: continue
  max_restarts: 5
  optimizer: {name: adamw, lr: 3.0e-4, betas: [0.9, 0.95], eps: 1.0e-6, weight_decay: 0.1}
  schedule: {name: cosine, warmup_steps: 100, min_lr_ratio: 0.1}
precision: {params: bf16, reduce: fp32}
parallelism: {ranks: 8, dp: 2, ulysses: 2, ring: 2, ring_exchange: all_gather, zero: 3}
memory: {device_budget: 1.5GiB}
checkpoint: {every_steps: 100, keep: 3, directory: /checkpoints, resume: never}
output: {dir: /out, weights: false}
)";

TEST(ParseJobYaml, FillsInDefaults) {
  ASSERT_OK_AND_ASSIGN(const JobSpec spec, ParseJobYaml(kSmallest, "job.yaml"));
  JobSpec expected;
  expected.name = "llama";
  expected.model.archives = {"models/llama.pt2"};
  expected.data.files = {"a.txt"};
  expected.training.seq_len = 512;
  expected.training.global_batch_size = 4;
  expected.training.steps = 10;
  expected.output.dir = "out";
  EXPECT_EQ(spec, expected);
}

TEST(ParseJobYaml, ReadsEveryKey) {
  ASSERT_OK_AND_ASSIGN(const JobSpec spec, ParseJobYaml(kEveryKey, "job.yaml"));
  EXPECT_EQ(spec.name, "a job");
  EXPECT_EQ(spec.model.weights, "/m/bert.safetensors");
  EXPECT_EQ(spec.model.loss_output, "0");
  EXPECT_THAT(spec.model.tied,
              ElementsAre(ElementsAre("embed.weight", "head.weight"), ElementsAre("norm.weight")));
  EXPECT_THAT(spec.model.frozen, ElementsAre("embeddings.*"));
  EXPECT_THAT(spec.model.no_decay, ElementsAre("*.bias", "*norm*"));
  EXPECT_EQ(spec.data.format, DataFormat::kTokens);
  EXPECT_THAT(spec.data.files, ElementsAre("/d/a.bin", "/d/b: c.bin"));
  EXPECT_EQ(spec.data.dtype, TokenDtype::kUint32);
  EXPECT_EQ(spec.data.shuffle_seed, 7);
  EXPECT_EQ(spec.data.validation, (ValidationSpec{0.05, 50, 2}));
  EXPECT_EQ(spec.data.inputs.at("ids"), (InputFeed{InputSource::kMlmTokens}));
  EXPECT_EQ(spec.data.inputs.at("targets"),
            (InputFeed{InputSource::kMlmLabels, {DimRole::kSequence, DimRole::kBatch}}));
  EXPECT_EQ(
      spec.data.inputs.at("bias"),
      (InputFeed{InputSource::kZeros, {DimRole::kBatch, DimRole::kOther, DimRole::kSequence}}));
  EXPECT_EQ(spec.data.ignore_index, -1);
  EXPECT_EQ(spec.data.pad_token, 3);
  EXPECT_EQ(spec.data.mask_token, 103);
  EXPECT_EQ(spec.data.mlm_probability, 0.2);
  EXPECT_EQ(spec.training.micro_batch_size, 2);
  EXPECT_EQ(spec.training.seed, 5);
  EXPECT_EQ(spec.training.clip_grad_norm, 1.0);
  EXPECT_EQ(spec.training.on_nan, NanPolicy::kContinue);
  EXPECT_EQ(spec.training.optimizer,
            (OptimizerSpec{OptimizerKind::kAdamW, 3e-4, {0.9, 0.95}, 1e-6, 0.1, 0.0}));
  EXPECT_EQ(spec.training.schedule, (ScheduleSpec{ScheduleKind::kCosine, 100, 0.1}));
  EXPECT_EQ(spec.precision.params, ParamPrecision::kBf16);
  EXPECT_EQ(spec.parallelism, (ParallelismSpec{8, 2, 2, 2, RingExchange::kAllGather, 3}));
  EXPECT_EQ(spec.memory.device_budget_bytes, int64_t{3} << 29);
  EXPECT_EQ(spec.training.max_restarts, 5);
  EXPECT_EQ(spec.checkpoint, (CheckpointSpec{100, 3, "/checkpoints", "never"}));
  EXPECT_FALSE(spec.output.weights);
}

TEST(ParseJobYaml, CheckpointsAreBesideTheOutputUnlessPlacedElsewhere) {
  ASSERT_OK_AND_ASSIGN(JobSpec spec, ParseJobYaml(kSmallest, "job.yaml"));
  EXPECT_EQ(CheckpointDirectory(spec), "out/checkpoints");
  spec.checkpoint.directory = "/elsewhere";
  EXPECT_EQ(CheckpointDirectory(spec), "/elsewhere");
}

TEST(CanonicalJobYaml, ParsesBackToTheSameSpec) {
  std::vector<std::string> texts = {kSmallest, kEveryKey};
  texts.push_back(absl::StrReplaceAll(
      kEveryKey, {{"{name: adamw, lr: 3.0e-4, betas: [0.9, 0.95], eps: 1.0e-6, weight_decay: 0.1}",
                   "{name: sgd, lr: 0.1, momentum: 0.9}"},
                  {"name: a job", "name: \"# 'odd': \\\"job\\\" \\\\ \\xfc\""},
                  {"1.5GiB", "auto"},
                  {"{ranks: 8, dp: 2, ulysses: 2, ring: 2, "
                   "ring_exchange: all_gather, zero: 3}",
                   "{ranks: auto}"}}));
  for (const std::string& text : texts) {
    ASSERT_OK_AND_ASSIGN(const JobSpec spec, ParseJobYaml(text, "job.yaml"));
    const std::string canonical = CanonicalJobYaml(spec);
    ASSERT_OK_AND_ASSIGN(const JobSpec back, ParseJobYaml(canonical, "canonical"));
    EXPECT_EQ(back, spec) << canonical;
    EXPECT_EQ(CanonicalJobYaml(back), canonical);
  }
}

TEST(CanonicalJobYaml, SaysTheDefaultsToo) {
  ASSERT_OK_AND_ASSIGN(const JobSpec spec, ParseJobYaml(kSmallest, "job.yaml"));
  EXPECT_EQ(CanonicalJobYaml(spec), R"(version: 1
kind: Job
name: llama
strict: false
verify: unproved
model:
  archive: [models/llama.pt2]
  tied: []
  frozen: []
  no_decay: []
data:
  format: text
  files: [a.txt]
  shuffle_seed: 0
  validation:
    fraction: 0
  ignore_index: -100
  pad_token: 0
  mask_token: -1
training:
  seq_len: 512
  global_batch_size: 4
  micro_batch_size: auto
  steps: 10
  seed: 0
  clip_grad_norm: 0
  on_nan: stop
  max_restarts: 3
  optimizer:
    name: adamw
    lr: 0.001
    betas: [0.9, 0.999]
    eps: 1e-08
    weight_decay: 0
  schedule:
    name: constant
    warmup_steps: 0
precision:
  params: as_exported
  reduce: fp32
parallelism:
  ranks: auto
  dp: auto
  ulysses: auto
  ring: auto
  ring_exchange: auto
  zero: auto
memory:
  device_budget: auto
  recompute: auto
  tiling: auto
  offload: auto
checkpoint:
  every_steps: 0
  resume: auto
output:
  dir: out
  weights: true
  max_shard_size: 5GB
)");
}

TEST(CanonicalJobYaml, KeepsEveryBitOfANumber) {
  JobSpec spec = *ParseJobYaml(kSmallest, "job.yaml");
  for (const double lr : {0.1, 1.0 / 3.0, 1e-300, 5e-324, 1.7976931348623157e308, 123456789.125}) {
    spec.training.optimizer.lr = lr;
    ASSERT_OK_AND_ASSIGN(const JobSpec back, ParseJobYaml(CanonicalJobYaml(spec), "job.yaml"));
    EXPECT_EQ(back.training.optimizer.lr, lr);
  }
}

TEST(ParseJobYaml, AppliesOverrides) {
  ASSERT_OK_AND_ASSIGN(
      const JobSpec spec,
      ParseJobYaml(kSmallest, "job.yaml",
                   {"training.steps=20", "data.files=/x/**/*.py", "parallelism.ranks=2",
                    "training.optimizer.betas=[0.8, 0.9]", "data.inputs.ids.from=tokens"}));
  EXPECT_EQ(spec.training.steps, 20);
  EXPECT_THAT(spec.data.files, ElementsAre("/x/**/*.py"));
  EXPECT_EQ(spec.parallelism.ranks, 2);
  EXPECT_THAT(spec.training.optimizer.betas, ElementsAre(0.8, 0.9));
  EXPECT_EQ(spec.data.inputs.at("ids").source, InputSource::kTokens);
}

struct BadOverride {
  std::string text;
  std::string message;
};

class OverrideRefused : public testing::TestWithParam<BadOverride> {};

TEST_P(OverrideRefused, WithTheExactMessage) {
  EXPECT_THAT(ParseJobYaml(kSmallest, "job.yaml", {GetParam().text}),
              IsError(absl::StatusCode::kInvalidArgument, GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, OverrideRefused,
    testing::Values(
        BadOverride{"training.steps",
                    "--set training.steps: is no path=value; write for example training.steps=20"},
        BadOverride{"training..steps=2",
                    "--set training..steps=2: is no path=value; write for "
                    "example training.steps=20"},
        BadOverride{"training.steps=ten",
                    "--set training.steps: training.steps: is 'ten'; "
                    "expected integer from 1 to 1099511627776"},
        BadOverride{
            "training.step=2",
            "--set training.step: training.step: unknown key; did you mean training.steps?"},
        BadOverride{"data.format.x=2", "--set data.format.x: x is under a value that is no map"},
        BadOverride{"data.files=[a",
                    "--set data.files:1:1: not YAML: end of sequence flow not "
                    "found"},
        BadOverride{"data.format=",
                    "--set data.format: data.format: is nothing; expected one of "
                    "text, tokens"}));

TEST(InputFeedFor, KnowsTheUsualNames) {
  DataSpec data;
  EXPECT_EQ(InputFeedFor(data, "input_ids")->source, InputSource::kTokens);
  EXPECT_EQ(InputFeedFor(data, "labels")->source, InputSource::kTokens);
  EXPECT_EQ(InputFeedFor(data, "position_ids")->source, InputSource::kPositions);
  EXPECT_EQ(InputFeedFor(data, "attention_mask")->source, InputSource::kOnes);
  EXPECT_EQ(InputFeedFor(data, "token_type_ids")->source, InputSource::kZeros);
  EXPECT_EQ(InputFeedFor(data, "pixel_values"), std::nullopt);

  data.mask_token = 103;
  EXPECT_EQ(InputFeedFor(data, "input_ids")->source, InputSource::kMlmTokens);
  EXPECT_EQ(InputFeedFor(data, "labels")->source, InputSource::kMlmLabels);

  data.inputs["labels"] = {InputSource::kNextTokens};
  EXPECT_EQ(InputFeedFor(data, "labels")->source, InputSource::kNextTokens);
}

TEST(CheckJobSpec, HoldsTheRulesBetweenKeys) {
  JobSpec spec = *ParseJobYaml(kSmallest, "job.yaml");
  EXPECT_THAT(CheckJobSpec(spec), IsOk());
  spec.parallelism.dp = 3;
  EXPECT_THAT(CheckJobSpec(spec), IsError(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("training.global_batch_size: 4 is not")));
}

}  // namespace
}  // namespace autosp
