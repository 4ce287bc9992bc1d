// The real binary, without an agent: training, weights out, and every way to end early.

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <signal.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "compiler/weights/safetensors_reader.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/rank/rank_fixture.h"

namespace autosp {
namespace {

using testing::HasSubstr;

constexpr absl::Duration kTimeout = absl::Minutes(3);

std::string Log(const RankFixture& fixture, const std::string& name, int64_t rank) {
  const auto text = ReadFile(fixture.RankLog(name, rank), 1 << 20);
  return text.ok() ? *text : "";
}

std::vector<Subprocess> StartAll(const RankFixture& fixture, const std::string& name,
                                 const Mesh& mesh) {
  std::vector<Subprocess> ranks;
  for (int64_t rank = 0; rank < mesh.world_size(); ++rank) {
    auto process = fixture.StartRank(name, mesh, rank);
    EXPECT_TRUE(process.ok()) << process.status();
    ranks.push_back(*std::move(process));
  }
  return ranks;
}

void ExpectAllFinish(const RankFixture& fixture, const std::string& name,
                     std::vector<Subprocess> ranks) {
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto exit = ranks[rank].WaitFor(kTimeout);
    ASSERT_TRUE(exit.has_value()) << Log(fixture, name, rank);
    EXPECT_TRUE(exit->ok()) << exit->ToString() << "\n" << Log(fixture, name, rank);
  }
}

// "step 3: loss 5.1234, ..." of each step, or the validation losses.
std::vector<double> LossesIn(const std::string& log, const std::string& what = "loss") {
  const std::regex pattern("step [0-9]+:[^\n]*?[ ,]" + what + " ([0-9.e+-]+)");
  std::vector<double> losses;
  for (auto it = std::sregex_iterator(log.begin(), log.end(), pattern);
       it != std::sregex_iterator(); ++it) {
    losses.push_back(std::stod((*it)[1]));
  }
  return losses;
}

at::Tensor ReadF32(const SafetensorsReader& reader, const std::string& name) {
  const auto tensor = reader.Find(name);
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  return at::from_blob(const_cast<std::byte*>(tensor->bytes.data()), tensor->entry->shape,
                       at::kFloat);
}

int NumSegments(const std::string& prefix) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
    count += entry.path().filename().string().starts_with(prefix.substr(1));
  }
  return count;
}

// Waits until the log of a rank holds `text`.
bool WaitForLog(const RankFixture& fixture, const std::string& name, int64_t rank,
                const std::string& text) {
  for (int i = 0; i < 1200; ++i) {
    if (Log(fixture, name, rank).find(text) != std::string::npos) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return false;
}

TEST(RankProcessTest, TwoRanksTrainAsOneDoes) {
  const RankFixture fixture(/*steps=*/5);
  // What an attempt before this one has left, and what a later one is writing.
  const std::string before = JoinPath(fixture.output_directory("one"), ".model.one-0.partial");
  const std::string later = JoinPath(fixture.output_directory("one"), ".model.one-2.partial");
  for (const std::string& path : {before, later}) ASSERT_TRUE(MakeDirectories(path).ok());
  ExpectAllFinish(fixture, "one", StartAll(fixture, "one", {.accum = 1}));
  EXPECT_FALSE(FileExists(before));
  EXPECT_TRUE(FileExists(later));
  ExpectAllFinish(fixture, "two", StartAll(fixture, "two", {.accum = 1, .ulysses = 2}));
  const std::vector<double> one = LossesIn(Log(fixture, "one", 0));
  const std::vector<double> two = LossesIn(Log(fixture, "two", 0));
  ASSERT_EQ(one.size(), 5);
  ASSERT_EQ(two.size(), 5);
  EXPECT_LT(one[4], one[0]);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], two[i], 1e-4 * one[i]);
  // Every second step, and the last one.
  EXPECT_EQ(LossesIn(Log(fixture, "two", 1), "validation loss").size(), 3);
  EXPECT_EQ(NumSegments(fixture.ShmPrefix("two")), 0);

  for (const char* name : {"one", "two"}) {
    const std::string path = JoinPath(fixture.output_directory(name), "metrics.jsonl");
    const auto text = ReadFile(path, 1 << 20);
    ASSERT_TRUE(text.ok()) << text.status();
    EXPECT_EQ(std::ranges::count(*text, '\n'), 5) << "a line for each step, of rank 0 alone";
  }
  const auto one_rank = SafetensorsReader::Open(fixture.output_directory("one"));
  const auto two_ranks = SafetensorsReader::Open(fixture.output_directory("two"));
  ASSERT_TRUE(one_rank.ok() && two_ranks.ok()) << one_rank.status() << two_ranks.status();
  EXPECT_EQ(one_rank->Names(), two_ranks->Names());
  for (const std::string& name : two_ranks->Names()) {
    const at::Tensor difference = ReadF32(*one_rank, name).sub(ReadF32(*two_ranks, name));
    EXPECT_LT(difference.abs().max().item<float>(), 1e-4) << name;
  }
}

TEST(RankProcessTest, KilledPeerEndsTheOther) {
  const RankFixture fixture(/*steps=*/100000);
  auto ranks = StartAll(fixture, "killed", {.accum = 1, .ulysses = 2});
  ASSERT_TRUE(WaitForLog(fixture, "killed", 0, "step 2:")) << Log(fixture, "killed", 0);
  ranks[1].Signal(SIGKILL);
  const auto exit = ranks[0].WaitFor(absl::Seconds(10));
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->code, 1);
  EXPECT_THAT(Log(fixture, "killed", 0), HasSubstr("rank 1 has died"));
  EXPECT_EQ(NumSegments(fixture.ShmPrefix("killed")), 0);
  EXPECT_FALSE(FileExists(JoinPath(fixture.output_directory("killed"), "model.safetensors")));
}

TEST(RankProcessTest, SigtermStopsCleanly) {
  const RankFixture fixture(/*steps=*/100000);
  auto ranks = StartAll(fixture, "stopped", {.accum = 1, .ulysses = 2});
  ASSERT_TRUE(WaitForLog(fixture, "stopped", 0, "step 2:")) << Log(fixture, "stopped", 0);
  for (Subprocess& rank : ranks) rank.Signal(SIGTERM);
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto exit = ranks[rank].WaitFor(absl::Seconds(20));
    ASSERT_TRUE(exit.has_value());
    EXPECT_FALSE(exit->was_signaled);
    EXPECT_EQ(exit->code, 143) << Log(fixture, "stopped", rank);
  }
}

TEST(RankProcessTest, NanStopsAndNamesTheStep) {
  RankFixture fixture(/*steps=*/50);
  fixture.job().training.optimizer.lr = 1e30;
  fixture.job().training.clip_grad_norm = 0;
  auto ranks = StartAll(fixture, "nan", {.accum = 1});
  const auto exit = ranks[0].WaitFor(kTimeout);
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->code, 1);
  EXPECT_THAT(Log(fixture, "nan", 0),
              testing::ContainsRegex("step [0-9]+: the loss is -?(nan|inf)"));
}

// The loss of the last step is finite, and what it makes of the weights is not.
TEST(RankProcessTest, WeightsThatTurnNanAreNotWritten) {
  RankFixture fixture(/*steps=*/2);
  fixture.job().training.optimizer.lr = 3e7;
  fixture.job().data.validation = {};
  fixture.job().checkpoint = {.every_steps = 2, .directory = fixture.dir().Join("checkpoints")};
  auto ranks = StartAll(fixture, "nan-weights", {.accum = 1});
  const auto exit = ranks[0].WaitFor(kTimeout);
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->code, 1) << Log(fixture, "nan-weights", 0);
  EXPECT_THAT(Log(fixture, "nan-weights", 0),
              testing::ContainsRegex("step 2: the norm of the gradients is -?(nan|inf)"));
  EXPECT_FALSE(FileExists(fixture.dir().Join("checkpoints/step-00000002")));
  EXPECT_FALSE(FileExists(JoinPath(fixture.output_directory("nan-weights"), "model.safetensors")));
}

TEST(RankProcessTest, ChangedProgramIsRefused) {
  const RankFixture fixture(/*steps=*/1);
  { auto ranks = StartAll(fixture, "changed", {.accum = 1}); }
  // The same spec with another program beside it.
  const std::string spec = fixture.dir().Join("changed-rank0.json");
  ASSERT_TRUE(WriteFileAtomically(fixture.dir().Join("changed.program"), "program").ok());
  auto rank = Subprocess::Start({.argv = {std::getenv("AUTOSP_RANK"), "--spec", spec},
                                 .env = {},
                                 .working_directory = "",
                                 .output = SubprocessOptions::Output::kFile,
                                 .output_path = fixture.RankLog("changed", 0),
                                 .inherited_fds = {},
                                 .dies_with_parent = true});
  ASSERT_TRUE(rank.ok());
  const auto exit = rank->WaitFor(kTimeout);
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->code, 1);
  EXPECT_THAT(Log(fixture, "changed", 0), HasSubstr("the file has changed"));
}

// What a step leaves to the next is all in the checkpoint: both moments, fp32 masters beside bf16
// parameters, momentum, and what dropout draws.
TEST(RankProcessTest, GoesOnFromACheckpointBitForBit) {
  const OptimizerSpec adamw{.lr = 1e-3, .weight_decay = 0.1};
  const OptimizerSpec momentum{.kind = OptimizerKind::kSgd, .lr = 0.1, .momentum = 0.9};
  struct Case {
    std::string model;
    ParamPrecision precision;
    OptimizerSpec optimizer;
  };
  const Case cases[] = {{"llama", ParamPrecision::kBf16, adamw},
                        {"gpt2_dropout", ParamPrecision::kAsExported, momentum}};
  const Mesh mesh{.accum = 2, .dp = 2};
  for (const Case& each : cases) {
    SCOPED_TRACE(each.model);
    RankFixture fixture(/*steps=*/6);
    JobSpec& job = fixture.job();
    job.model.archives = {absl::StrCat(AUTOSP_SOURCE_DIR, "/tests/zoo/", each.model, "/model.pt2")};
    job.precision.params = each.precision;
    job.training.optimizer = each.optimizer;
    ExpectAllFinish(fixture, "whole", StartAll(fixture, "whole", mesh));
    job.checkpoint = {.every_steps = 3, .directory = fixture.dir().Join("checkpoints")};
    job.training.steps = 3;
    ExpectAllFinish(fixture, "first", StartAll(fixture, "first", mesh));
    job.training.steps = 6;
    ExpectAllFinish(fixture, "then", StartAll(fixture, "then", mesh));
    EXPECT_THAT(Log(fixture, "then", 0), HasSubstr("goes on after step 3"));
    const std::vector<double> whole = LossesIn(Log(fixture, "whole", 0));
    ASSERT_EQ(whole.size(), 6);
    EXPECT_EQ(LossesIn(Log(fixture, "then", 0)),
              std::vector<double>(whole.begin() + 3, whole.end()));
    std::string weights[2];
    for (const int i : {0, 1}) {
      const std::string folder = fixture.output_directory(i == 0 ? "whole" : "then");
      const auto bytes = ReadFile(JoinPath(folder, "model.safetensors"), 1 << 26);
      ASSERT_TRUE(bytes.ok()) << bytes.status();
      weights[i] = *bytes;
    }
    EXPECT_TRUE(weights[0] == weights[1]) << "the weights differ";
  }
}

}  // namespace
}  // namespace autosp
