// Plans over NCCL's code path and over the staging of device memory, on doubles of CUDA and NCCL
// that add in the order of ranks: the same bits and the same bytes as between threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/equality/zoo_model.h"
#include "tests/worker/nccl/fake_gpus.h"

namespace autosp {
namespace {

struct Case {
  const char* name;
  const char* model;
  Mesh mesh;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

// What one step leaves behind, of all ranks.
struct StepOutcome {
  std::vector<double> losses;
  std::vector<NamedTensors> gradients;
  std::vector<std::vector<CollectiveUse>> uses;
};

class GpuPathTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    auto zoo = ZooModel::Load(GetParam().model);
    ASSERT_TRUE(zoo.ok()) << zoo.status();
    zoo_ = *std::move(zoo);
    auto reference =
        ReadSafetensors(ZooPath(absl::StrCat(GetParam().model, "/reference.safetensors")));
    ASSERT_TRUE(reference.ok()) << reference.status();
    reference_ = *std::move(reference);
  }

  StepOutcome RunStep(const VirtualRankOptions& options) {
    StepOutcome outcome;
    Program program;
    auto ranks = zoo_->Start(zoo_->Job(2, 32), GetParam().mesh, &program, options);
    EXPECT_TRUE(ranks.ok()) << ranks.status();
    if (!ranks.ok()) return outcome;
    auto results = (*ranks)->Run("step", WithPrefix(reference_, "input."));
    EXPECT_TRUE(results.ok()) << results.status();
    if (!results.ok()) return outcome;
    for (int rank = 0; rank < (*ranks)->size(); ++rank) {
      outcome.losses.push_back((*results)[rank].Number("loss").value());
      outcome.uses.push_back((*results)[rank].collectives);
      NamedTensors& gradients = outcome.gradients.emplace_back();
      for (const Persistent& persistent : program.persistents) {
        if (persistent.kind != PersistentKind::kParam) continue;
        gradients[persistent.name] =
            (*ranks)->executor(rank).Get("grad:" + persistent.name).value().clone();
      }
    }
    return outcome;
  }

  void ExpectSame(const StepOutcome& actual, const StepOutcome& expected) {
    EXPECT_EQ(actual.losses, expected.losses);
    ASSERT_EQ(actual.gradients.size(), expected.gradients.size());
    for (size_t rank = 0; rank < expected.gradients.size(); ++rank) {
      for (const auto& [name, gradient] : expected.gradients[rank]) {
        EXPECT_TRUE(actual.gradients[rank].at(name).equal(gradient)) << name;
      }
      ASSERT_EQ(actual.uses[rank].size(), expected.uses[rank].size());
      for (size_t i = 0; i < expected.uses[rank].size(); ++i) {
        EXPECT_EQ(actual.uses[rank][i].kind, expected.uses[rank][i].kind);
        EXPECT_EQ(actual.uses[rank][i].calls, expected.uses[rank][i].calls);
        EXPECT_EQ(actual.uses[rank][i].bytes_received, expected.uses[rank][i].bytes_received);
      }
    }
  }

  std::unique_ptr<ZooModel> zoo_;
  NamedTensors reference_;
  FakeGpus gpus_;
};

TEST_P(GpuPathTest, NcclGivesTheBitsOfThreads) {
  const StepOutcome expected = RunStep({});
  ASSERT_FALSE(expected.losses.empty());
  ExpectSame(RunStep({.wrap_group =
                          [this](int64_t rank, std::unique_ptr<Collectives> control) {
                            return gpus_.OpenNccl(rank, std::move(control));
                          }}),
             expected);
  EXPECT_THAT(gpus_.Complaints(), testing::IsEmpty());
}

TEST_P(GpuPathTest, StagingGivesTheBitsOfThreads) {
  const StepOutcome expected = RunStep({});
  ASSERT_FALSE(expected.losses.empty());
  ExpectSame(RunStep({.wrap_group =
                          [this](int64_t rank, std::unique_ptr<Collectives> host) {
                            return gpus_.Stage(rank, std::move(host));
                          }}),
             expected);
  EXPECT_THAT(gpus_.Complaints(), testing::IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(
    Zoo, GpuPathTest,
    testing::Values(Case{"llama_u2", "llama", {.accum = 1, .dp = 1, .ring = 1, .ulysses = 2}},
                    Case{"llama_d2u2", "llama", {.accum = 1, .dp = 2, .ring = 1, .ulysses = 2}},
                    Case{"llama_r2u2", "llama", {.accum = 1, .dp = 1, .ring = 2, .ulysses = 2}},
                    Case{"gpt2_a2r2", "gpt2", {.accum = 2, .dp = 1, .ring = 2, .ulysses = 1}},
                    Case{"bert_u4", "bert", {.accum = 1, .dp = 1, .ring = 1, .ulysses = 4}},
                    Case{"plain_d2r2", "plain", {.accum = 1, .dp = 2, .ring = 2, .ulysses = 1}}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace autosp
