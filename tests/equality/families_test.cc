// The other families of the zoo (tests/zoo/families.py) against PyTorch's loss and every gradient:
// on every kind of mesh, and at another batch and length than they were exported with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/equality/zoo_model.h"

namespace autosp {
namespace {

constexpr DimRole kB = DimRole::kBatch;
constexpr DimRole kO = DimRole::kOther;

// Batch and length of a reference; the first is that of the export.
struct Shape {
  int64_t batch;
  int64_t seq_len;
  const char* file;
};

constexpr Shape kExported = {2, 32, "reference.safetensors"};
constexpr Shape kOther = {1, 64, "reference_b1_s64.safetensors"};
constexpr Shape kOdd = {2, 29, "reference_b2_s29.safetensors"};  // no number of ranks divides it

struct Case {
  std::string model;
  Shape shape;
  Mesh mesh;
};

std::string CaseName(const Case& c) {
  return absl::StrCat(c.model, "_b", c.shape.batch, "s", c.shape.seq_len, "_a", c.mesh.accum, "d",
                      c.mesh.dp, "r", c.mesh.ring, "u", c.mesh.ulysses);
}

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << CaseName(c); }

// Images have no dimension of tokens, and patches a fixed number.
void FeedImages(const ImportedModel& model, JobSpec* job) {
  auto& inputs = job->data.inputs;
  for (const GraphInput& input : model.graph.inputs) {
    if (input.name == "patches") inputs["patches"].dims = {kB, kO, kO};
    if (input.name != "pixel_values") continue;
    inputs["pixel_values"].dims = {kB, kO, kO, kO};
    inputs["labels"] = {.source = InputSource::kZeros, .dims = {kB}};  // the class of an image
  }
}

// What a case must be refused with; "" where it must run.
std::string Refusal(const Case& c) {
  // The auxiliary loss counts the tokens of each expert over the whole batch.
  if (c.model == "mixtral" && c.mesh.accum > 1) {
    return "set training.micro_batch_size so that there is one micro-step";
  }
  if (c.model == "mamba2" && c.shape.seq_len == kOdd.seq_len) {
    return "training.seq_len: 29 is not a multiple of 8, the block that ";
  }
  return "";
}

class FamiliesTest : public testing::TestWithParam<Case> {};

TEST_P(FamiliesTest, LossAndGradientsAreThoseOfOneDevice) {
  const Case& c = GetParam();
  auto zoo = ZooModel::Load(c.model);
  ASSERT_TRUE(zoo.ok()) << zoo.status();
  auto reference = ReadSafetensors(ZooPath(absl::StrCat(c.model, "/", c.shape.file)));
  ASSERT_TRUE(reference.ok()) << reference.status();
  JobSpec job = (*zoo)->Job(c.shape.batch, c.shape.seq_len);
  FeedImages((*zoo)->model(), &job);
  Program program;
  auto ranks = (*zoo)->Start(job, c.mesh, &program);
  if (const std::string refusal = Refusal(c); !refusal.empty()) {
    EXPECT_THAT(ranks.status().ToString(), testing::HasSubstr(refusal));
    return;
  }
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  auto results = (*ranks)->Run("step", WithPrefix(*reference, "input."));
  ASSERT_TRUE(results.ok()) << results.status();
  const double expected = reference->at("loss").item<double>();
  for (const SectionResult& result : *results) {
    EXPECT_NEAR(result.Number("loss").value(), expected, 1e-5 * std::abs(expected));
  }
  const NamedTensors expected_gradients = WithPrefix(*reference, "grad.");
  for (int rank = 0; rank < (*ranks)->size(); ++rank) {
    NamedTensors gradients;
    for (const auto& [name, tensor] : expected_gradients) {
      auto canonical = (*zoo)->Canonical(program, name);
      ASSERT_TRUE(canonical.ok()) << canonical.status();
      auto gradient = (*ranks)->executor(rank).Get("grad:" + *canonical);
      ASSERT_TRUE(gradient.ok()) << gradient.status();
      gradients[name] = *gradient;
    }
    EXPECT_EQ(CompareGradients(gradients, expected_gradients, 1e-5), "") << "rank " << rank;
  }
}

std::vector<Case> AllCases() {
  const std::vector<std::string> models = {
      "qwen2", "qwen3",   "mistral", "mixtral", "opt",
      "vit",   "roberta", "mamba2",  "t5",      "patches_and_text"};
  const std::vector<Mesh> meshes = {
      {.accum = 1, .dp = 1, .ring = 1, .ulysses = 1},
      {.accum = 1, .dp = 1, .ring = 1, .ulysses = 2},
      {.accum = 1, .dp = 1, .ring = 1, .ulysses = 4},
      {.accum = 1, .dp = 1, .ring = 2, .ulysses = 1},
      {.accum = 1, .dp = 1, .ring = 4, .ulysses = 1},
      {.accum = 1, .dp = 1, .ring = 2, .ulysses = 2},
      {.accum = 1, .dp = 2, .ring = 1, .ulysses = 2},
      {.accum = 2, .dp = 1, .ring = 1, .ulysses = 2},
  };
  std::vector<Case> cases;
  for (const std::string& model : models) {
    for (const Mesh& mesh : meshes) {
      for (const Shape& shape : {kExported, kOther, kOdd}) {
        if (shape.batch % (mesh.dp * mesh.accum) != 0) continue;
        if (model == "vit" && shape.seq_len != kExported.seq_len) continue;  // no tokens to count
        cases.push_back({model, shape, mesh});
      }
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Zoo, FamiliesTest, testing::ValuesIn(AllCases()),
                         [](const testing::TestParamInfo<Case>& info) {
                           return CaseName(info.param);
                         });

}  // namespace
}  // namespace autosp
