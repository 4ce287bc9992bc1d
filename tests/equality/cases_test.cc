// Tiny modules that are easy to shard wrongly (tests/zoo/export_cases.py), against PyTorch's loss
// and gradients: at another batch and length than exported, at lengths that no number of ranks
// divides, with ranks that hold no valid label.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "tests/equality/zoo_model.h"

namespace autosp {
namespace {

constexpr DimRole kB = DimRole::kBatch;
constexpr DimRole kS = DimRole::kSequence;
constexpr DimRole kO = DimRole::kOther;

// The dimensions of inputs by name, as in export_cases.py.
void FeedInputs(const ImportedModel& model, JobSpec* job) {
  static const auto& kFeeds = *new std::map<std::string, InputFeed>{
      {"ids", {.source = InputSource::kTokens}},
      {"labels", {.source = InputSource::kNextTokens}},
      {"mask", {.source = InputSource::kOnes}},
      {"documents", {.source = InputSource::kZeros}},
      {"positions", {.source = InputSource::kPositions}},
      {"ids_sb", {.source = InputSource::kTokens, .dims = {kS, kB}}},
      {"labels_sb", {.source = InputSource::kNextTokens, .dims = {kS, kB}}},
      {"features", {.source = InputSource::kZeros, .dims = {kB, kS, kO}}},
      {"context", {.source = InputSource::kZeros, .dims = {kB, kO, kO}}},
      {"image", {.source = InputSource::kZeros, .dims = {kB, kO, kS, kO}}},
      {"classes", {.source = InputSource::kZeros, .dims = {kB}}},
  };
  job->data.inputs.clear();
  for (const GraphInput& input : model.graph.inputs) {
    if (const auto feed = kFeeds.find(input.name); feed != kFeeds.end()) {
      job->data.inputs[input.name] = feed->second;
    }
  }
}

std::vector<std::string> CaseNames() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(ZooPath("cases"))) {
    names.insert(entry.path().filename().string());
  }
  return {names.begin(), names.end()};
}

struct Shape {
  int64_t batch;
  int64_t seq_len;
};

class CasesTest : public testing::TestWithParam<std::string> {
 protected:
  // "" where loss and gradients are PyTorch's.
  std::string Compare(const Shape& shape, const Mesh& mesh) {
    auto zoo = ZooModel::Load("cases/" + GetParam());
    if (!zoo.ok()) return zoo.status().ToString();
    auto reference = ReadSafetensors(ZooPath(absl::StrCat(
        "cases/", GetParam(), "/reference_b", shape.batch, "_s", shape.seq_len, ".safetensors")));
    if (!reference.ok()) return reference.status().ToString();
    JobSpec job = (*zoo)->Job(shape.batch, shape.seq_len);
    FeedInputs((*zoo)->model(), &job);
    Program program;
    auto ranks = (*zoo)->Start(job, mesh, &program);
    if (!ranks.ok()) return ranks.status().ToString();
    auto results = (*ranks)->Run("step", WithPrefix(*reference, "input."));
    if (!results.ok()) return results.status().ToString();
    const double expected = reference->at("loss").item<double>();
    for (const SectionResult& result : *results) {
      const double loss = result.Number("loss").value();
      if (!(std::abs(loss - expected) <= 1e-5 * std::abs(expected))) {
        return absl::StrCat("loss ", loss, ", expected ", expected);
      }
    }
    const NamedTensors expected_gradients = WithPrefix(*reference, "grad.");
    for (int rank = 0; rank < (*ranks)->size(); ++rank) {
      NamedTensors gradients;
      for (const auto& [name, tensor] : expected_gradients) {
        auto canonical = (*zoo)->Canonical(program, name);
        if (!canonical.ok()) return canonical.status().ToString();
        auto gradient = (*ranks)->executor(rank).Get("grad:" + *canonical);
        if (!gradient.ok()) return gradient.status().ToString();
        gradients[name] = *gradient;
      }
      const std::string worst = CompareGradients(gradients, expected_gradients, 1e-5);
      if (!worst.empty()) return absl::StrCat("rank ", rank, ": ", worst);
    }
    return "";
  }
};

Mesh MakeMesh(int64_t accum, int64_t dp, int64_t ulysses, int64_t ring = 1) {
  return {.accum = accum, .dp = dp, .ring = ring, .ulysses = ulysses};
}

TEST_P(CasesTest, OneRank) {
  EXPECT_EQ(Compare({4, 16}, MakeMesh(1, 1, 1)), "");
  EXPECT_EQ(Compare({2, 13}, MakeMesh(1, 1, 1)), "");
}

TEST_P(CasesTest, TwoRanks) { EXPECT_EQ(Compare({4, 16}, MakeMesh(1, 1, 2)), ""); }
TEST_P(CasesTest, FourRanks) { EXPECT_EQ(Compare({4, 16}, MakeMesh(1, 1, 4)), ""); }
TEST_P(CasesTest, RanksThatDivideNothing) {
  EXPECT_EQ(Compare({4, 16}, MakeMesh(1, 1, 3)), "");
  EXPECT_EQ(Compare({2, 13}, MakeMesh(1, 1, 3)), "");
  EXPECT_EQ(Compare({4, 16}, MakeMesh(1, 1, 5)), "");
}
TEST_P(CasesTest, DataParallel) { EXPECT_EQ(Compare({4, 16}, MakeMesh(1, 2, 1)), ""); }
TEST_P(CasesTest, BothAxes) { EXPECT_EQ(Compare({4, 16}, MakeMesh(1, 2, 2)), ""); }

// What is known of one micro-step alone is refused there, by name.
TEST_P(CasesTest, Accumulation) {
  static const auto& kNeedWholeBatch = *new std::set<std::string>{
      // A statistic over the batch, fed back.
      "batch_statistics", "mixture_of_experts", "unbatched",
      // Ops without a rule, which are gathered.
      "in_place_forms", "ops_without_rules"};
  if (kNeedWholeBatch.contains(GetParam())) {
    EXPECT_THAT(Compare({4, 16}, MakeMesh(2, 1, 2)),
                testing::HasSubstr("set training.micro_batch_size so that there is"));
    return;
  }
  EXPECT_EQ(Compare({4, 16}, MakeMesh(2, 1, 2)), "");
  EXPECT_EQ(Compare({4, 16}, MakeMesh(2, 2, 1)), "");
  EXPECT_EQ(Compare({2, 13}, MakeMesh(2, 1, 2)), "");
}

TEST_P(CasesTest, Ring) {
  EXPECT_EQ(Compare({4, 16}, MakeMesh(1, 1, 1, 2)), "");
  EXPECT_EQ(Compare({4, 16}, MakeMesh(1, 1, 1, 4)), "");
}

TEST_P(CasesTest, RingAndHeads) { EXPECT_EQ(Compare({4, 16}, MakeMesh(1, 1, 2, 2)), ""); }

TEST_P(CasesTest, LengthsThatRingsDoNotDivide) {
  EXPECT_EQ(Compare({2, 13}, MakeMesh(1, 1, 1, 2)), "");
  EXPECT_EQ(Compare({2, 13}, MakeMesh(1, 1, 2, 2)), "");
  EXPECT_EQ(Compare({2, 13}, MakeMesh(1, 2, 1, 4)), "");
}

TEST_P(CasesTest, LengthsThatRanksDoNotDivide) {
  EXPECT_EQ(Compare({2, 13}, MakeMesh(1, 1, 2)), "");
  EXPECT_EQ(Compare({2, 13}, MakeMesh(1, 1, 4)), "");
  EXPECT_EQ(Compare({2, 13}, MakeMesh(1, 2, 4)), "");
}

INSTANTIATE_TEST_SUITE_P(Zoo, CasesTest, testing::ValuesIn(CaseNames()),
                         [](const testing::TestParamInfo<std::string>& info) {
                           return info.param;
                         });

}  // namespace
}  // namespace autosp
