// What a wrong job file is told: each message is held word by word, since it is the interface.
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "compiler/config/job_yaml.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using ::testing::EndsWith;

constexpr char kGood[] = R"(version: 1
kind: Job
model:
  archive: llama.pt2
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

// The good file in which `from` is replaced, and what that is told.
struct BadFile {
  std::string from;
  std::string to;
  std::string message;
};

class JobFileRefused : public testing::TestWithParam<BadFile> {};

TEST_P(JobFileRefused, WithTheExactMessage) {
  const std::string text = absl::StrReplaceAll(kGood, {{GetParam().from, GetParam().to}});
  ASSERT_NE(text, kGood);
  EXPECT_THAT(ParseJobYaml(text, "job.yaml"),
              IsError(absl::StatusCode::kInvalidArgument, GetParam().message))
      << text;
}

INSTANTIATE_TEST_SUITE_P(
    Header, JobFileRefused,
    testing::Values(
        BadFile{"version: 1\n", "", "job.yaml:1:1: version: is missing; add version: 1"},
        BadFile{"version: 1", "version: 2",
                "job.yaml:1:10: version: is '2'; this program reads version 1"},
        BadFile{"version: 1", "version: '1'",
                "job.yaml:1:10: version: is '1'; this program reads version 1"},
        BadFile{"kind: Job\n", "", "job.yaml:1:1: kind: is missing; add kind: Job"},
        BadFile{"kind: Job", "kind: Cluster",
                "job.yaml:2:7: kind: is 'Cluster'; expected Job: is this the right file?"},
        BadFile{kGood, "just text",
                "job.yaml:1:1: file: is 'just text'; expected a map that begins with version: 1"}));

INSTANTIATE_TEST_SUITE_P(
    Keys, JobFileRefused,
    testing::Values(
        BadFile{"seq_len: 512", "sequence_len: 512\n  seq_len: 512",
                "job.yaml:9:3: training.sequence_len: unknown key; did you mean training.seq_len?"},
        BadFile{"global_batch_size", "global_batch",
                "job.yaml:10:3: training.global_batch: unknown key; did you mean "
                "training.global_batch_size?\n"
                "job.yaml:9:3: training.global_batch_size: is missing; expected integer from 1 to "
                "16777216"},
        BadFile{"  steps: 10", "  steps: 10\n  lr: 0.1",
                "job.yaml:12:3: training.lr: unknown key; did you mean training.optimizer.lr?"},
        BadFile{"  steps: 10", "  steps: 10\n  dtype: uint16",
                "job.yaml:12:3: training.dtype: unknown key; did you mean data.dtype?"},
        BadFile{"output:\n", "optimizer: {lr: 1}\noutput:\n",
                "job.yaml:12:1: optimizer: unknown key; did you mean training.optimizer?"},
        BadFile{"output:\n", "outputs: 3\noutput:\n",
                "job.yaml:12:1: outputs: unknown key; did you mean output?"},
        BadFile{"  dir: out", "  dir: out\n  zzzzzzzz: 1",
                "job.yaml:14:3: output.zzzzzzzz: unknown key; known keys of output are dir, "
                "weights, max_shard_size, config"},
        BadFile{"output:\n", "zzzzzzzz: 1\noutput:\n",
                "job.yaml:12:1: zzzzzzzz: unknown key; known keys are name, strict, verify, model, "
                "data, training, precision, parallelism, memory, checkpoint, output"},
        BadFile{"  files: [a.txt]", "  files: [a.txt]\n  inputs: {ids: {form: tokens}}",
                "job.yaml:8:18: data.inputs.ids.form: unknown key; did you mean "
                "data.inputs.ids.from?\n"
                "job.yaml:8:17: data.inputs.ids.from: is missing; expected tokens, next_tokens, "
                "positions, ones, zeros, mlm_tokens, mlm_labels"},
        BadFile{"  steps: 10\n", "",
                "job.yaml:9:3: training.steps: is missing; expected integer from 1 to "
                "1099511627776"},
        BadFile{"output:\n  dir: out\n", "", "job.yaml:1:1: output.dir: is missing; expected path"},
        BadFile{"output:\n  dir: out\n", "output:\n",
                "job.yaml:12:1: output.dir: is missing; expected path"}));

INSTANTIATE_TEST_SUITE_P(
    Values, JobFileRefused,
    testing::Values(
        BadFile{"output:\n", "checkpoint: {keep: 3}\noutput:\n",
                "job.yaml:12:20: checkpoint.keep: has no effect here, only with "
                "checkpoint.every_steps above 0; remove it"},
        BadFile{"output:\n", "checkpoint: {every_steps: 5, keep: 0}\noutput:\n",
                "job.yaml:12:36: checkpoint.keep: 0 is out of range; expected integer from 1 to "
                "1000000"},
        BadFile{"output:\n", "checkpoint: {every_steps: -1}\noutput:\n",
                "job.yaml:12:27: checkpoint.every_steps: -1 is out of range; expected integer from "
                "0 to 1099511627776"},
        BadFile{"steps: 10", "steps: 10\n  max_restarts: -1",
                "job.yaml:12:17: training.max_restarts: -1 is out of range; expected integer from "
                "0 to 1000000"},
        BadFile{"  dir: out", "  dir: out\n  weights: false\n  config: c.json",
                "job.yaml:15:11: output.config: has no effect here, only with output.weights true; "
                "remove it"},
        BadFile{"steps: 10", "steps: ten",
                "job.yaml:11:10: training.steps: is 'ten'; expected integer from 1 to "
                "1099511627776"},
        BadFile{"steps: 10", "steps: '10'",
                "job.yaml:11:10: training.steps: is '10' in quotes; expected integer from 1 to "
                "1099511627776"},
        BadFile{"steps: 10", "steps: 1.5",
                "job.yaml:11:10: training.steps: is '1.5'; expected integer from 1 to "
                "1099511627776"},
        BadFile{"steps: 10", "steps: 0",
                "job.yaml:11:10: training.steps: 0 is out of range; expected integer from 1 to "
                "1099511627776"},
        BadFile{"steps: 10", "steps: [10]",
                "job.yaml:11:10: training.steps: is a list; expected integer from 1 to "
                "1099511627776"},
        BadFile{"steps: 10", "steps: 99999999999999999999",
                "job.yaml:11:10: training.steps: is '99999999999999999999'; expected integer from "
                "1 to 1099511627776"},
        BadFile{"steps: 10", "steps: 10\n  clip_grad_norm: nan",
                "job.yaml:12:19: training.clip_grad_norm: nan is out of range; expected number of "
                "at least 0"},
        BadFile{"steps: 10", "steps: 10\n  optimizer: {betas: [0.9]}",
                "job.yaml:12:22: training.optimizer.betas: has 1 items; at least 2 are needed"},
        BadFile{"steps: 10", "steps: 10\n  optimizer: {betas: [0.9, 1.0]}",
                "job.yaml:12:28: training.optimizer.betas[1]: 1.0 is out of range; expected number "
                "of at least 0 and below 1"},
        BadFile{"steps: 10", "steps: 10\n  optimizer: {name: adam}",
                "job.yaml:12:21: training.optimizer.name: is 'adam'; expected one of adamw, sgd; "
                "did you mean adamw?"},
        BadFile{"steps: 10", "steps: 10\n  optimizer: adamw",
                "job.yaml:12:14: training.optimizer: is 'adamw'; expected a map"},
        BadFile{"archive: llama.pt2", "archive: ''",
                "job.yaml:4:12: model.archive: is empty; expected path, or leave the key out"},
        BadFile{"archive: llama.pt2", "archive: \"a\\nb\"",
                "job.yaml:4:12: model.archive: holds a control character; expected path on one "
                "line"},
        BadFile{"dir: out", "dir: out\n  weights: yes",
                "job.yaml:14:12: output.weights: is 'yes'; expected true or false"},
        BadFile{"files: [a.txt]", "files: []",
                "job.yaml:7:10: data.files: has 0 items; at least 1 are needed"},
        BadFile{"output:\n", "memory: {device_budget: 4G}\noutput:\n",
                "job.yaml:12:25: memory.device_budget: is '4G'; expected size, as in 4GiB or "
                "512MiB, or auto"},
        BadFile{"output:\n", "precision: {reduce: bf16}\noutput:\n",
                "job.yaml:12:21: precision.reduce: is 'bf16'; expected fp32"}));

INSTANTIATE_TEST_SUITE_P(
    Rules, JobFileRefused,
    testing::Values(
        BadFile{"output:\n", "parallelism: {dp: 3}\noutput:\n",
                "job.yaml:10:22: training.global_batch_size: 4 is not a multiple of parallelism.dp "
                "(3); set it to 3 or 6"},
        BadFile{"  steps: 10", "  steps: 10\n  micro_batch_size: 8",
                "job.yaml:10:22: training.global_batch_size: 4 is not a multiple of "
                "training.micro_batch_size (8); set it to 8"},
        BadFile{"  steps: 10\n", "  steps: 10\n  micro_batch_size: 2\nparallelism: {dp: 4}\n",
                "job.yaml:10:22: training.global_batch_size: 4 is not a multiple of parallelism.dp "
                "(4) x training.micro_batch_size (2); set it to 8"},
        BadFile{"output:\n", "parallelism: {ranks: 8, dp: 2, ulysses: 2, ring: 1}\noutput:\n",
                "job.yaml:12:22: parallelism.ranks: 8 is not dp (2) x ulysses (2) x ring (1); set "
                "it to 4, or to auto"},
        BadFile{"output:\n", "parallelism: {ranks: 3, ulysses: 2}\noutput:\n",
                "job.yaml:12:22: parallelism.ranks: 3 is not a multiple of ulysses (2); set it to "
                "one, or to auto"},
        BadFile{"  steps: 10", "  steps: 10\n  schedule: {warmup_steps: 11}",
                "job.yaml:12:28: training.schedule.warmup_steps: 11 is above training.steps (10); "
                "warm up for fewer steps"},
        BadFile{"  files: [a.txt]", "  files: [a.txt]\n  dtype: uint16",
                "job.yaml:8:10: data.dtype: has no effect here, only with data.format tokens; "
                "remove it"},
        BadFile{"  steps: 10", "  steps: 10\n  optimizer: {momentum: 0.9}",
                "job.yaml:12:25: training.optimizer.momentum: has no effect here, only with "
                "training.optimizer.name sgd; remove it"},
        BadFile{"  files: [a.txt]", "  files: [a.txt]\n  inputs: {ids: {from: mlm_tokens}}",
                "job.yaml:6:3: data.mask_token: is missing; mlm_tokens need the id of the token "
                "that stands for a masked one"},
        BadFile{"  files: [a.txt]", "  files: [a.txt]\n  inputs: {y: {from: mlm_labels}}",
                "job.yaml:8:11: data.inputs: mlm_labels without mlm_tokens: the model would see "
                "what it shall predict; feed the tokens from mlm_tokens"},
        BadFile{"  files: [a.txt]",
                "  files: [a.txt]\n  inputs: {x: {from: tokens, dims: [batch]}}",
                "job.yaml:8:36: data.inputs.x.dims: [batch]: tokens have one batch and one "
                "sequence dimension"},
        BadFile{"  files: [a.txt]",
                "  files: [a.txt]\n  inputs: {x: {from: tokens, dims: [sequence]}}",
                "job.yaml:8:36: data.inputs.x.dims: [sequence]: tokens have one batch and one "
                "sequence dimension; export a model of one sequence in a module that takes [1, "
                "sequence] and gives it x[0], and set training.global_batch_size to 1"},
        BadFile{"  files: [a.txt]",
                "  files: [a.txt]\n  inputs: {x: {from: ones, dims: [batch, batch]}}",
                "job.yaml:8:34: data.inputs.x.dims: [batch, batch]: batch may be there once"},
        BadFile{"  files: [a.txt]",
                "  files: [a.txt]\n  inputs: {x: {from: ones, dims: [batch, sequence, sequence]}}",
                "job.yaml:8:34: data.inputs.x.dims: [batch, sequence, sequence]: sequence may be "
                "there once; for a mask of queries and keys call the second one other: its size "
                "follows from the keys"},
        BadFile{"  files: [a.txt]",
                "  files: [a.txt]\n  inputs: {x: {from: positions, dims: [batch]}}",
                "job.yaml:8:39: data.inputs.x.dims: [batch]: positions need a sequence "
                "dimension"}));

TEST(JobFile, NamesEveryMistakeAtOnceUpToTwenty) {
  std::string text = absl::StrReplaceAll(kGood, {{"steps: 10", "steps: -1"}, {"512", "x"}});
  absl::StatusOr<JobSpec> spec = ParseJobYaml(text, "job.yaml");
  std::vector<std::string> lines = absl::StrSplit(spec.status().message(), '\n');
  EXPECT_EQ(lines.size(), 2u) << spec.status();

  for (int i = 0; i < 30; ++i) absl::StrAppend(&text, "zzzzzzz", i, ": 1\n");
  spec = ParseJobYaml(text, "job.yaml");
  lines = absl::StrSplit(spec.status().message(), '\n');
  EXPECT_EQ(lines.size(), 21u);
  EXPECT_EQ(lines.back(), "and 12 more");
}

TEST(JobFile, CutsLongValuesInMessages) {
  const std::string text =
      absl::StrReplaceAll(kGood, {{"steps: 10", "steps: " + std::string(5000, 'x')}});
  EXPECT_LT(ParseJobYaml(text, "job.yaml").status().message().size(), 200u);
}

TEST(JobFile, BoundsTheName) {
  const auto parse = [](size_t size) {
    return ParseJobYaml(absl::StrCat("name: ", std::string(size, 'n'), "\n", kGood), "job.yaml");
  };
  EXPECT_THAT(parse(256), IsOk());
  EXPECT_THAT(parse(257), IsError(absl::StatusCode::kInvalidArgument,
                                  testing::HasSubstr("name: has 257 bytes, more than 256; write a "
                                                     "shorter one")));
}

// What the model says about a job gets the place of the key, or of the nearest above it.
TEST(JobFile, LocatesWhatIsFoundLater) {
  const struct {
    std::string message;
    std::string located;
  } kCases[] = {
      {"training.seq_len: too long", "job.yaml:9:12: training.seq_len: too long"},
      {"model.weights: is not set", "job.yaml:4:3: model.weights: is not set"},
      {"model.archive: x\nno key: y\ndata.files[0]: z",
       "job.yaml:4:12: model.archive: x\nno key: y\njob.yaml:7:11: data.files[0]: z"},
      {"training.steps: too many", "--set training.steps: training.steps: too many"},
      {"layers.0.mlp: no such op", "layers.0.mlp: no such op"},
      {"the model is odd", "the model is odd"},
      {"", ""},
  };
  for (const auto& each : kCases) {
    EXPECT_EQ(LocateInJobYaml(each.message, kGood, "job.yaml", {"training.steps=20"}),
              each.located);
  }
  EXPECT_EQ(LocateInJobYaml("model.x: y", "model: [", "job.yaml"), "model.x: y");
}

}  // namespace
}  // namespace autosp
