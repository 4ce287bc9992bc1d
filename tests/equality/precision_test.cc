// bf16 models against fp32: error(SP) <= 2.5 x error(PyTorch on one device in bf16) + 2e-3, over
// the L2 norm of all gradients.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "tests/equality/zoo_model.h"

namespace autosp {
namespace {

struct Case {
  const char* model;
  Mesh mesh;
};

class PrecisionTest : public testing::TestWithParam<Case> {};

TEST_P(PrecisionTest, IsAsCloseAsOneDevice) {
  const Case& c = GetParam();
  auto zoo = ZooModel::Load(c.model);
  ASSERT_TRUE(zoo.ok()) << zoo.status();
  auto reference = ReadTensors(ZooPath(absl::StrCat(c.model, "/reference.safetensors")));
  ASSERT_TRUE(reference.ok()) << reference.status();
  Program program;
  auto ranks = (*zoo)->Start((*zoo)->Job(2, 32), c.mesh, &program);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  auto results = (*ranks)->Run("step", WithPrefix(*reference, "input."));
  ASSERT_TRUE(results.ok()) << results.status();
  const double loss = reference->at("loss").item<double>();
  const double own_loss = reference->at("bf16.loss").item<double>();
  const double loss_bound = 2.5 * std::abs(own_loss - loss) + 2e-3 * std::abs(loss);
  for (const SectionResult& result : *results) {
    EXPECT_NEAR(result.Number("loss").value(), loss, loss_bound);
  }
  double difference = 0;
  double total = 0;
  for (const auto& [name, expected] : WithPrefix(*reference, "grad.")) {
    auto canonical = (*zoo)->Canonical(program, name);
    ASSERT_TRUE(canonical.ok()) << canonical.status();
    auto gradient = (*ranks)->executor(0).Get("grad:" + *canonical);
    ASSERT_TRUE(gradient.ok()) << gradient.status();
    difference += (*gradient - expected).square().sum().item<double>();
    total += expected.square().sum().item<double>();
  }
  const double bound = 2.5 * reference->at("bf16.grad_error").item<double>() + 2e-3;
  EXPECT_LE(std::sqrt(difference / total), bound);
}

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (const char* model : {"llama_bf16", "llama_autocast"}) {
    for (const Mesh& mesh : {Mesh{1, 1, 1, 1}, Mesh{1, 1, 1, 2}, Mesh{1, 1, 1, 4},
                             Mesh{1, 2, 1, 2}}) {
      cases.push_back({model, mesh});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Zoo, PrecisionTest, testing::ValuesIn(AllCases()),
                         [](const testing::TestParamInfo<Case>& info) {
                           return absl::StrCat(info.param.model, "_d", info.param.mesh.dp, "u",
                                               info.param.mesh.ulysses);
                         });

}  // namespace
}  // namespace autosp
