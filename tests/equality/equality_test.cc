// Plans compute what PyTorch computes on one device: loss and every gradient, for every mesh.
#include <gtest/gtest.h>

#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/status_macros.h"
#include "tests/equality/zoo_model.h"

namespace autosp {
namespace {

struct Case {
  const char* model;
  const char* reference;
  int64_t batch;
  int64_t seq_len;
  Mesh mesh;
};

std::string MeshName(const Mesh& mesh) {
  return absl::StrCat("a", mesh.accum, "d", mesh.dp, "r", mesh.ring, "u", mesh.ulysses);
}

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.model << " " << c.reference << " " << MeshName(c.mesh);
}

class EqualityTest : public testing::TestWithParam<Case> {};

TEST_P(EqualityTest, LossAndGradientsAreThoseOfOneDevice) {
  const Case& c = GetParam();
  auto zoo = ZooModel::Load(c.model);
  ASSERT_TRUE(zoo.ok()) << zoo.status();
  auto reference = ReadSafetensors(ZooPath(c.reference));
  ASSERT_TRUE(reference.ok()) << reference.status();
  Program program;
  auto ranks = (*zoo)->Start((*zoo)->Job(c.batch, c.seq_len), c.mesh, &program);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  auto results = (*ranks)->Run("step", WithPrefix(*reference, "input."));
  ASSERT_TRUE(results.ok()) << results.status();
  const double expected = reference->at("loss").item<double>();
  for (const SectionResult& result : *results) {
    EXPECT_NEAR(result.Number("loss").value(), expected, 1e-5 * std::abs(expected));
  }
  NamedTensors gradients;
  const NamedTensors expected_gradients = WithPrefix(*reference, "grad.");
  for (const auto& [name, tensor] : expected_gradients) {
    auto canonical = (*zoo)->Canonical(program, name);
    ASSERT_TRUE(canonical.ok()) << canonical.status();
    auto gradient = (*ranks)->executor(0).Get("grad:" + *canonical);
    ASSERT_TRUE(gradient.ok()) << gradient.status();
    gradients[name] = *gradient;
  }
  EXPECT_EQ(CompareGradients(gradients, expected_gradients, 1e-5), "");
}

std::vector<Case> AllCases() {
  const std::vector<Mesh> meshes = {
      {.accum = 1, .dp = 1, .ring = 1, .ulysses = 1},
      {.accum = 1, .dp = 1, .ring = 1, .ulysses = 2},
      {.accum = 1, .dp = 1, .ring = 1, .ulysses = 4},
      {.accum = 1, .dp = 2, .ring = 1, .ulysses = 2},
      {.accum = 2, .dp = 1, .ring = 1, .ulysses = 2},
      {.accum = 1, .dp = 2, .ring = 1, .ulysses = 1},
      {.accum = 1, .dp = 1, .ring = 2, .ulysses = 1},
      {.accum = 1, .dp = 1, .ring = 4, .ulysses = 1},
      {.accum = 1, .dp = 1, .ring = 2, .ulysses = 2},
      {.accum = 2, .dp = 2, .ring = 2, .ulysses = 1},
  };
  std::vector<Case> cases;
  for (const Mesh& mesh : meshes) {
    cases.push_back({"llama", "llama/reference.safetensors", 2, 32, mesh});
    cases.push_back({"llama_static", "llama/reference.safetensors", 2, 32, mesh});
    cases.push_back({"llama_mask", "llama_mask/reference.safetensors", 2, 32, mesh});
    cases.push_back({"gpt2", "gpt2/reference.safetensors", 2, 32, mesh});
    cases.push_back({"bert", "bert/reference.safetensors", 2, 32, mesh});
    cases.push_back({"plain", "plain/reference.safetensors", 2, 32, mesh});
    if (mesh.dp * mesh.accum > 1) continue;
    // Another batch size and length than at export; a shard without a valid label.
    cases.push_back({"llama", "llama/reference_b1_s64.safetensors", 1, 64, mesh});
    cases.push_back({"llama_static", "llama/reference_b1_s64.safetensors", 1, 64, mesh});
    cases.push_back({"llama_mask", "llama_mask/reference_b1_s64.safetensors", 1, 64, mesh});
    cases.push_back({"gpt2", "gpt2/reference_b1_s64.safetensors", 1, 64, mesh});
    cases.push_back({"bert", "bert/reference_b1_s64.safetensors", 1, 64, mesh});
    cases.push_back({"plain", "plain/reference_b1_s64.safetensors", 1, 64, mesh});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Zoo, EqualityTest, testing::ValuesIn(AllCases()),
                         [](const testing::TestParamInfo<Case>& info) {
                           const Case& c = info.param;
                           return absl::StrCat(c.model, "_b", c.batch, "s", c.seq_len, "_",
                                               MeshName(c.mesh));
                         });

}  // namespace
}  // namespace autosp
