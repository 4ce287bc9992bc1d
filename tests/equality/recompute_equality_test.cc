// What the backward makes again is what the forward made: the same bits, in less memory.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compiler/analysis/simulate.h"
#include "compiler/checker/check_program.h"
#include "tests/equality/zoo_model.h"

namespace autosp {
namespace {

struct StepNumbers {
  double loss = 0;
  NamedTensors gradients;
  int64_t predicted_bytes = 0;
  int64_t peak_bytes = 0;  // of the rank with the most
};

class RecomputeTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto zoo = ZooModel::Load(GetParam());
    ASSERT_TRUE(zoo.ok()) << zoo.status();
    zoo_ = *std::move(zoo);
    auto reference = ReadSafetensors(ZooPath(absl::StrCat(Folder(), "/reference.safetensors")));
    ASSERT_TRUE(reference.ok()) << reference.status();
    inputs_ = WithPrefix(*reference, "input.");
  }

  // The model with dropout has no numbers of its own.
  std::string Folder() const {
    const std::string name = GetParam();
    return name == "gpt2_dropout" ? "gpt2" : name;
  }

  absl::StatusOr<StepNumbers> Run(const Mesh& mesh, Recompute recompute) {
    const at::Tensor& ids = inputs_.begin()->second;
    JobSpec job = zoo_->Job(ids.size(0), ids.size(1));
    job.memory.recompute = recompute;
    Program program;
    auto ranks = zoo_->Start(job, mesh, &program);
    if (!ranks.ok()) return ranks.status();
    auto predicted = SimulateSection(program, "step");
    if (!predicted.ok()) return predicted.status();
    if (auto status = (*ranks)->SetScalar("step", 1); !status.ok()) return status;
    auto results = (*ranks)->Run("step", inputs_);
    if (!results.ok()) return results.status();
    StepNumbers numbers;
    numbers.loss = (*results)[0].Number("loss").value();
    numbers.predicted_bytes = predicted->memory[Account::kDevice].peak_bytes;
    for (const SectionResult& result : *results) {
      numbers.peak_bytes =
          std::max(numbers.peak_bytes, result.memory.at(Account::kDevice).peak_bytes);
    }
    for (const Persistent& persistent : program.persistents) {
      if (!persistent.name.starts_with("grad:")) continue;
      auto gradient = (*ranks)->executor(0).Get(persistent.name);
      if (!gradient.ok()) return gradient.status();
      numbers.gradients[persistent.name] = gradient->clone();
    }
    return numbers;
  }

  std::unique_ptr<ZooModel> zoo_;
  NamedTensors inputs_;
};

std::string NameOf(const Mesh& mesh) {
  return absl::StrCat("accum ", mesh.accum, " dp ", mesh.dp, " ring ", mesh.ring, " ulysses ",
                      mesh.ulysses);
}

TEST_P(RecomputeTest, GivesTheSameBits) {
  for (const Mesh& mesh :
       {Mesh{1, 1, 1, 1}, Mesh{1, 1, 1, 2}, Mesh{1, 1, 2, 1}, Mesh{2, 1, 1, 2}, Mesh{1, 1, 2, 2}}) {
    const auto kept = Run(mesh, Recompute::kNone);
    ASSERT_TRUE(kept.ok()) << kept.status();
    for (Recompute recompute : {Recompute::kSelective, Recompute::kFull}) {
      const std::string where = absl::StrCat(NameOf(mesh), " ", ToString(recompute));
      const auto again = Run(mesh, recompute);
      ASSERT_TRUE(again.ok()) << where << ": " << again.status();
      EXPECT_EQ(again->loss, kept->loss) << where;
      ASSERT_EQ(again->gradients.size(), kept->gradients.size());
      for (const auto& [name, gradient] : kept->gradients) {
        EXPECT_TRUE(at::equal(again->gradients.at(name), gradient)) << where << " " << name;
      }
      EXPECT_LE(again->predicted_bytes, kept->predicted_bytes) << where;
      const auto predicted = static_cast<double>(again->predicted_bytes);
      EXPECT_NEAR(static_cast<double>(again->peak_bytes), predicted, 0.1 * predicted) << where;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Zoo, RecomputeTest,
                         testing::Values("llama", "gpt2", "gpt2_dropout", "bert", "mistral",
                                         "llama_bf16"),
                         [](const testing::TestParamInfo<const char*>& info) {
                           return std::string(info.param);
                         });

}  // namespace
}  // namespace autosp
