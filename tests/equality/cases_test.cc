// Tiny modules that are easy to shard wrongly (tests/zoo/export_cases.py), against PyTorch's loss
// and gradients: at another batch and length than exported, at lengths that no number of ranks
// divides, with ranks that hold no valid label.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "tests/equality/case_jobs.h"

namespace autosp {
namespace {

struct Shape {
  int64_t batch;
  int64_t seq_len;
};

// A case at one shape, ready for any mesh.
struct Subject {
  std::unique_ptr<ZooModel> zoo;
  NamedTensors reference;
  PreparedJob prepared;
};

absl::StatusOr<Subject> MakeSubject(const std::string& name, const Shape& shape) {
  Subject subject;
  ASSIGN_OR_RETURN(subject.zoo, ZooModel::Load("cases/" + name));
  ASSIGN_OR_RETURN(subject.reference,
                   ReadSafetensors(ZooPath(absl::StrCat("cases/", name, "/reference_b", shape.batch,
                                                        "_s", shape.seq_len, ".safetensors"))));
  JobSpec job = subject.zoo->Job(shape.batch, shape.seq_len);
  FeedCaseInputs(subject.zoo->model(), &job);
  ASSIGN_OR_RETURN(subject.prepared, PrepareJob(subject.zoo->model(), job));
  return subject;
}

class CasesTest : public testing::TestWithParam<std::string> {
 protected:
  // All tests of a case share it.
  const absl::StatusOr<Subject>& SubjectOf(const Shape& shape) {
    static auto& subjects = *new std::map<std::string, absl::StatusOr<Subject>>;
    const std::string key = absl::StrCat(GetParam(), " ", shape.batch, "x", shape.seq_len);
    if (!subjects.contains(key)) subjects.emplace(key, MakeSubject(GetParam(), shape));
    return subjects.at(key);
  }

  // "" where loss and gradients are PyTorch's.
  std::string Compare(Shape shape, const Mesh& mesh) {
    // An odd number of blocks, where a length that nothing divides is none of the model's.
    if (shape.seq_len == 13 && CasesInBlocksOfFour().contains(GetParam())) shape.seq_len = 12;
    if (shape.batch == 2 && CasesOfThreePairs().contains(GetParam())) shape.batch = 6;
    const absl::StatusOr<Subject>& subject = SubjectOf(shape);
    if (!subject.ok()) return subject.status().ToString();
    const auto& [zoo, reference, prepared] = *subject;
    Program program;
    auto ranks = zoo->Start(prepared, mesh, {.ring_exchange = ring_exchange_}, &program);
    if (!ranks.ok()) return ranks.status().ToString();
    auto results = (*ranks)->Run("step", WithPrefix(reference, "input."));
    if (!results.ok()) return results.status().ToString();
    const double expected = reference.at("loss").item<double>();
    for (const SectionResult& result : *results) {
      const double loss = result.Number("loss").value();
      if (!(std::abs(loss - expected) <= 1e-5 * std::abs(expected))) {
        return absl::StrCat("loss ", loss, ", expected ", expected);
      }
    }
    const NamedTensors expected_gradients = WithPrefix(reference, "grad.");
    for (int rank = 0; rank < (*ranks)->size(); ++rank) {
      NamedTensors gradients;
      for (const auto& [name, tensor] : expected_gradients) {
        auto canonical = zoo->Canonical(program, name);
        if (!canonical.ok()) return canonical.status().ToString();
        auto gradient = (*ranks)->executor(rank).Get("grad:" + *canonical);
        if (!gradient.ok()) return gradient.status().ToString();
        gradients[name] = *gradient;
      }
      const std::string worst = CompareGradients(gradients, expected_gradients, 1e-5);
      if (!worst.empty()) return absl::StrCat("rank ", rank, ": ", worst);
    }
    for (int rank = 0; rank < (*ranks)->size(); ++rank) {
      const std::string wrong = CompareBuffers(program, (*ranks)->executor(rank), reference);
      if (!wrong.empty()) return absl::StrCat("rank ", rank, ": ", wrong);
    }
    return "";
  }

  // Each buffer that the step writes, by itself.
  static std::string CompareBuffers(const Program& program, const Executor& executor,
                                    const NamedTensors& reference) {
    const NamedTensors expected = WithPrefix(reference, "buffer.");
    if (expected.size() != program.WrittenBuffers().size()) return "other buffers are written";
    for (const auto& [name, tensor] : expected) {
      auto held = executor.Get(name);
      if (!held.ok()) return held.status().ToString();
      const std::string worst = CompareGradients({{name, *held}}, {{name, tensor}}, 1e-5);
      if (!worst.empty()) return worst;
    }
    return "";
  }

  RingExchange ring_exchange_ = RingExchange::kSendRecv;
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
  if (CasesThatNeedTheWholeBatch().contains(GetParam())) {
    EXPECT_THAT(Compare({4, 16}, MakeMesh(2, 1, 2)),
                testing::HasSubstr("set training.micro_batch_size so that there is"));
    return;
  }
  EXPECT_EQ(Compare({4, 16}, MakeMesh(2, 1, 2)), "");
  EXPECT_EQ(Compare({4, 16}, MakeMesh(2, 2, 1)), "");
  EXPECT_EQ(Compare({2, 13}, MakeMesh(2, 1, 2)), "");
  EXPECT_EQ(Compare({4, 16}, MakeMesh(2, 2, 1, 2)), "");
}

TEST_P(CasesTest, Ring) {
  EXPECT_EQ(Compare({4, 16}, MakeMesh(1, 1, 1, 2)), "");
  EXPECT_EQ(Compare({4, 16}, MakeMesh(1, 1, 1, 4)), "");
}

TEST_P(CasesTest, RingThatGathersKeys) {
  ring_exchange_ = RingExchange::kAllGather;
  EXPECT_EQ(Compare({4, 16}, MakeMesh(1, 1, 1, 2)), "");
  EXPECT_EQ(Compare({2, 13}, MakeMesh(1, 1, 1, 4)), "");
  EXPECT_EQ(Compare({2, 13}, MakeMesh(1, 1, 2, 2)), "");
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

INSTANTIATE_TEST_SUITE_P(Zoo, CasesTest, testing::ValuesIn(ZooFolders("cases")),
                         [](const testing::TestParamInfo<std::string>& info) {
                           return info.param;
                         });

}  // namespace
}  // namespace autosp
