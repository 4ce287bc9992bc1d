#include "worker/verify/random_weights.h"

#include <ATen/ATen.h>

#include <memory>

#include "common/errors.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

constexpr char kProgram[] = R"(program "p" {
  mesh accum=1 dp=1 ring=1 ulysses=1
  param %w "linear.weight" : f32[64, 32]
  param %b "linear.bias" : f32[64]
  param %n "norm.weight" : bf16[64]
  buffer %i "ids" : i64[4]
  buffer %c "constant" : f32[2]
  state %g "grad:linear.weight" : f32[64, 32]
  section step {
  }
}
)";

// An archive that has bytes for a constant alone; `broken` cannot be read.
class ConstantSource final : public WeightSource {
 public:
  absl::StatusOr<at::Tensor> Load(const std::string& name) override {
    if (name == "constant") return at::full({2}, 7.0);
    if (name == "broken") return DataLoss("broken");
    return NotFound("no ", name);
  }
};

RandomWeights Make(uint64_t seed) {
  const absl::StatusOr<Program> program = ParseProgram(kProgram);
  EXPECT_THAT(program, IsOk());
  return RandomWeights(*program, std::make_unique<ConstantSource>(), seed);
}

TEST(RandomWeightsTest, DependOnSeedAndNameAlone) {
  RandomWeights first = Make(1);
  RandomWeights again = Make(1);
  RandomWeights other = Make(2);
  ASSERT_OK_AND_ASSIGN(const at::Tensor bias, first.Load("linear.bias"));
  ASSERT_OK_AND_ASSIGN(const at::Tensor weight, first.Load("linear.weight"));
  ASSERT_OK_AND_ASSIGN(const at::Tensor same, again.Load("linear.weight"));
  ASSERT_OK_AND_ASSIGN(const at::Tensor different, other.Load("linear.weight"));
  EXPECT_TRUE(at::equal(weight, same));
  EXPECT_FALSE(at::equal(weight, different));
  EXPECT_FALSE(at::equal(weight.flatten().slice(0, 0, 64), bias));
}

TEST(RandomWeightsTest, AreLikeThoseOfAModelAtItsStart) {
  RandomWeights weights = Make(1);
  ASSERT_OK_AND_ASSIGN(const at::Tensor weight, weights.Load("linear.weight"));
  EXPECT_EQ(weight.sizes(), at::IntArrayRef({64, 32}));
  EXPECT_NEAR(weight.mean().item<double>(), 0, 0.01);
  EXPECT_NEAR(weight.std().item<double>(), 0.05, 0.005);
  ASSERT_OK_AND_ASSIGN(const at::Tensor bias, weights.Load("linear.bias"));
  EXPECT_NEAR(bias.mean().item<double>(), 0, 0.05);
  ASSERT_OK_AND_ASSIGN(const at::Tensor norm, weights.Load("norm.weight"));
  EXPECT_NEAR(norm.mean().item<double>(), 1, 0.05);
  EXPECT_EQ(norm.scalar_type(), at::kFloat);  // rounded by the program that is bf16
  ASSERT_OK_AND_ASSIGN(const at::Tensor ids, weights.Load("ids"));
  EXPECT_EQ(ids.scalar_type(), at::kLong);
  EXPECT_TRUE(ids.eq(0).all().item<bool>());
}

TEST(RandomWeightsTest, ConstantsComeFromTheArchive) {
  RandomWeights weights = Make(1);
  ASSERT_OK_AND_ASSIGN(const at::Tensor constant, weights.Load("constant"));
  EXPECT_TRUE(constant.eq(7.0).all().item<bool>());
}

TEST(RandomWeightsTest, ErrorsAreNotCoveredByRandomNumbers) {
  RandomWeights weights = Make(1);
  EXPECT_THAT(weights.Load("broken"), IsError(absl::StatusCode::kDataLoss, testing::_));
  EXPECT_THAT(weights.Load("nothing"), IsError(absl::StatusCode::kNotFound, testing::_));
  EXPECT_THAT(weights.Load("grad:linear.weight"), IsError(absl::StatusCode::kNotFound, testing::_));
}

}  // namespace
}  // namespace autosp
