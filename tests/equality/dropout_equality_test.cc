// Dropout drops the same elements for any number of ranks, and others in each step.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/equality/zoo_model.h"

namespace autosp {
namespace {

struct StepNumbers {
  double loss = 0;
  NamedTensors gradients;
};

class DropoutTest : public testing::Test {
 protected:
  void SetUp() override {
    auto zoo = ZooModel::Load("gpt2_dropout");
    ASSERT_TRUE(zoo.ok()) << zoo.status();
    zoo_ = *std::move(zoo);
    auto reference = ReadSafetensors(ZooPath("gpt2/reference.safetensors"));
    ASSERT_TRUE(reference.ok()) << reference.status();
    inputs_ = WithPrefix(*reference, "input.");
  }

  absl::StatusOr<StepNumbers> Run(const Mesh& mesh, float step, int64_t seed = 0,
                                  std::string_view section = "step") {
    JobSpec job = zoo_->Job(2, 32);
    job.training.seed = seed;
    Program program;
    auto ranks = zoo_->Start(job, mesh, &program);
    if (!ranks.ok()) return ranks.status();
    if (auto status = (*ranks)->SetScalar("step", step); !status.ok()) return status;
    auto results = (*ranks)->Run(section, inputs_);
    if (!results.ok()) return results.status();
    StepNumbers numbers{.loss = (*results)[0].Number("loss").value(), .gradients = {}};
    for (const Persistent& persistent : program.persistents) {
      if (!persistent.name.starts_with("grad:")) continue;
      auto gradient = (*ranks)->executor(0).Get(persistent.name);
      if (!gradient.ok()) return gradient.status();
      numbers.gradients[persistent.name] = *gradient;
    }
    return numbers;
  }

  std::unique_ptr<ZooModel> zoo_;
  NamedTensors inputs_;
};

TEST_F(DropoutTest, IsTheSameForAnyMesh) {
  const auto one = Run({1, 1, 1, 1}, 3);
  ASSERT_TRUE(one.ok()) << one.status();
  for (const Mesh& mesh : {Mesh{1, 1, 1, 2}, Mesh{1, 1, 1, 4}, Mesh{1, 1, 2, 1}, Mesh{1, 1, 2, 2},
                           Mesh{1, 2, 1, 2}, Mesh{2, 1, 1, 1}, Mesh{2, 1, 2, 1}}) {
    const auto many = Run(mesh, 3);
    ASSERT_TRUE(many.ok()) << many.status();
    const std::string name =
        absl::StrCat(mesh.accum, " ", mesh.dp, " ", mesh.ring, " ", mesh.ulysses);
    EXPECT_NEAR(many->loss, one->loss, 1e-5 * one->loss) << name;
    EXPECT_EQ(CompareGradients(many->gradients, one->gradients, 1e-5), "") << name;
  }
}

TEST_F(DropoutTest, ChangesWithStepAndSeedAlone) {
  const auto first = Run({1, 1, 1, 1}, 3);
  const auto again = Run({1, 1, 1, 1}, 3);
  const auto next_step = Run({1, 1, 1, 1}, 4);
  const auto other_seed = Run({1, 1, 1, 1}, 3, 1);
  ASSERT_TRUE(first.ok() && again.ok() && next_step.ok() && other_seed.ok());
  EXPECT_EQ(first->loss, again->loss);
  EXPECT_NE(first->loss, next_step->loss);
  EXPECT_NE(first->loss, other_seed->loss);
}

// Validation sees the whole model: the loss is that of the model without dropout.
TEST_F(DropoutTest, IsOffInValidation) {
  const auto validation = Run({1, 1, 1, 2}, 3, 0, "eval");
  const auto training = Run({1, 1, 1, 2}, 3);
  ASSERT_TRUE(validation.ok() && training.ok()) << validation.status();
  auto reference = ReadSafetensors(ZooPath("gpt2/reference.safetensors"));
  ASSERT_TRUE(reference.ok());
  const double expected = reference->at("loss").item<double>();
  EXPECT_NE(training->loss, validation->loss);
  EXPECT_NEAR(validation->loss, expected, 1e-5 * expected);
}

}  // namespace
}  // namespace autosp
