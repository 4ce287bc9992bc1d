// Dropout drops the same elements for any number of ranks, and others in each step.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compiler/planner/exported_graph.h"
#include "tests/equality/case_jobs.h"
#include "tests/equality/zoo_model.h"
#include "worker/verify/eager_step.h"

namespace autosp {
namespace {

struct StepNumbers {
  double loss = 0;
  NamedTensors gradients;
};

class DropoutTest : public testing::Test {
 protected:
  void SetUp() override { Load("gpt2_dropout", "gpt2/reference.safetensors"); }

  void Load(const std::string& model, const std::string& inputs) {
    auto zoo = ZooModel::Load(model);
    ASSERT_TRUE(zoo.ok()) << zoo.status();
    zoo_ = *std::move(zoo);
    auto reference = ReadSafetensors(ZooPath(inputs));
    ASSERT_TRUE(reference.ok()) << reference.status();
    inputs_ = WithPrefix(*reference, "input.");
  }

  absl::StatusOr<StepNumbers> Run(const Mesh& mesh, float step, int64_t seed = 0,
                                  std::string_view section = "step") {
    const at::Tensor& labels = inputs_.at("labels");
    JobSpec job = zoo_->Job(labels.size(0), labels.size(1));
    if (inputs_.contains("ids")) FeedCaseInputs(zoo_->model(), &job);
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

  // A plan's first step is that of the model as exported, with dropout and draws as PyTorch defines
  // them.
  void ExpectFirstStepOfExport() {
    const at::Tensor& labels = inputs_.at("labels");
    JobSpec job = zoo_->Job(labels.size(0), labels.size(1));
    if (inputs_.contains("ids")) FeedCaseInputs(zoo_->model(), &job);
    const auto exported = MakeExportedGraph(zoo_->model(), job);
    ASSERT_TRUE(exported.ok()) << exported.status();
    MapWeights weights(zoo_->weights());
    const auto expected = RunEagerly(exported->graph, job.model, weights, inputs_);
    ASSERT_TRUE(expected.ok()) << expected.status();
    const auto plan = Run({1, 1, 1, 2}, 1);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_NEAR(plan->loss, expected->loss, 1e-5 * expected->loss);
    NamedTensors gradients;
    for (const auto& [name, tensor] : expected->gradients) gradients["grad:" + name] = tensor;
    EXPECT_EQ(CompareGradients(plan->gradients, gradients, 1e-5), "");
  }

  std::unique_ptr<ZooModel> zoo_;
  NamedTensors inputs_;
};

TEST_F(DropoutTest, IsThatOfPyTorch) { ExpectFirstStepOfExport(); }

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

// A model that draws for itself draws the same for any number of ranks, in validation too.
class DrawsTest : public DropoutTest, public testing::WithParamInterface<std::string> {
 protected:
  void SetUp() override {
    Load("draws/" + GetParam(), "cases/old_shift/reference_b4_s16.safetensors");
  }
};

INSTANTIATE_TEST_SUITE_P(Models, DrawsTest, testing::Values("stochastic_depth", "noise"),
                         [](const auto& info) { return info.param; });

TEST_P(DrawsTest, AreThoseOfPyTorch) { ExpectFirstStepOfExport(); }

TEST_P(DrawsTest, AreTheSameForAnyMesh) {
  for (const char* section : {"step", "eval"}) {
    const auto one = Run({1, 1, 1, 1}, 3, 0, section);
    const auto next_step = Run({1, 1, 1, 1}, 4, 0, section);
    ASSERT_TRUE(one.ok() && next_step.ok()) << one.status();
    EXPECT_NE(one->loss, next_step->loss) << section;
    for (const Mesh& mesh : {Mesh{1, 1, 1, 2}, Mesh{1, 1, 2, 2}, Mesh{1, 1, 1, 3}, Mesh{1, 2, 1, 2},
                             Mesh{2, 1, 2, 1}}) {
      const auto many = Run(mesh, 3, 0, section);
      ASSERT_TRUE(many.ok()) << many.status();
      const std::string name =
          absl::StrCat(section, mesh.accum, " ", mesh.dp, " ", mesh.ring, " ", mesh.ulysses);
      EXPECT_NEAR(many->loss, one->loss, 1e-5 * one->loss) << name;
      if (section == std::string("eval")) continue;
      EXPECT_EQ(CompareGradients(many->gradients, one->gradients, 1e-5), "") << name;
    }
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
