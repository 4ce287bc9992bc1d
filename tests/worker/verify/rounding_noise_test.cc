#include "worker/verify/rounding_noise.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <map>

#include "common/errors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

constexpr double kLowest = std::numeric_limits<float>::lowest();

class FewWeights final : public WeightSource {
 public:
  absl::StatusOr<at::Tensor> Load(const std::string& name) override {
    if (name == "w") return at::linspace(-1, 1, 64).to(at::kFloat);
    if (name == "mask") return at::full({4}, kLowest, at::kFloat);
    if (name == "ids") return at::arange(4);
    return NotFound("no ", name);
  }
};

// The loss is what is left of w's sum after `cancelled` of it was taken away.
absl::StatusOr<EagerStep> LeftOver(WeightSource& weights, double cancelled) {
  const absl::StatusOr<at::Tensor> w = weights.Load("w");
  if (!w.ok()) return w.status();
  EagerStep step;
  step.loss = w->abs().to(at::kDouble).sum().item<double>() - cancelled;
  step.grad_norm = 1;
  step.gradients["w"] = w->square();
  return step;
}

TEST(RoundingNoiseTest, IsThatOfWhatCancels) {
  FewWeights weights;
  for (const double cancelled : {0.0, 32.0}) {
    SCOPED_TRACE(cancelled);
    const StepOfWeights run = [&](WeightSource& each) { return LeftOver(each, cancelled); };
    ASSERT_OK_AND_ASSIGN(const EagerStep expected, run(weights));
    ASSERT_OK_AND_ASSIGN(const RoundingNoise noise, MeasureRoundingNoise(weights, expected, run));
    // A sum of 32.5, and one of 0.5, from the same terms.
    const double left = 32.5 - cancelled;
    EXPECT_GT(noise.loss, 1e-7 / left);
    EXPECT_LT(noise.loss, 1e-5 / left);
    EXPECT_NEAR(noise.loss_apart, noise.loss * left, 0.1 * noise.loss_apart);
    EXPECT_EQ(noise.grad_norm, 0);
    EXPECT_GT(noise.gradients.at("w"), 1e-8);
    EXPECT_LT(noise.gradients.at("w"), 1e-6);
  }
}

TEST(RoundingNoiseTest, IsTheSameEachTime) {
  FewWeights weights;
  const StepOfWeights run = [](WeightSource& each) { return LeftOver(each, 32); };
  ASSERT_OK_AND_ASSIGN(const EagerStep expected, run(weights));
  ASSERT_OK_AND_ASSIGN(const RoundingNoise first, MeasureRoundingNoise(weights, expected, run));
  ASSERT_OK_AND_ASSIGN(const RoundingNoise second, MeasureRoundingNoise(weights, expected, run));
  EXPECT_EQ(first.loss, second.loss);
  EXPECT_EQ(first.gradients, second.gradients);
}

TEST(RoundingNoiseTest, MovesNeitherIntegersNorTheLowestNumberOfAMaskToInfinity) {
  FewWeights weights;
  const StepOfWeights run = [](WeightSource& each) -> absl::StatusOr<EagerStep> {
    EXPECT_TRUE(at::equal(*each.Load("ids"), at::arange(4)));
    EXPECT_TRUE(each.Load("mask")->isfinite().all().item<bool>());
    return LeftOver(each, 0);
  };
  ASSERT_OK_AND_ASSIGN(const EagerStep expected, run(weights));
  EXPECT_THAT(MeasureRoundingNoise(weights, expected, run), IsOk());
}

TEST(RoundingNoiseTest, AnErrorOfARunIsThatOfTheMeasurement) {
  FewWeights weights;
  const StepOfWeights run = [](WeightSource& each) -> absl::StatusOr<EagerStep> {
    const absl::StatusOr<at::Tensor> missing = each.Load("missing");
    if (!missing.ok()) return missing.status();
    return EagerStep{};
  };
  EXPECT_THAT(MeasureRoundingNoise(weights, EagerStep{}, run),
              IsError(absl::StatusCode::kNotFound, testing::HasSubstr("no missing")));
}

TEST(RoundingNoiseTest, OfALossIsInPartsOfWhatItAdds) {
  const EagerStep expected{.added = 32.5};
  EXPECT_DOUBLE_EQ(LossNoiseBound(1e-6, expected), 3e-5);
  EXPECT_EQ(LossNoiseBound(1, expected), 0.325);
  EXPECT_EQ(LossNoiseBound(INFINITY, expected), 0);
  EXPECT_EQ(LossNoiseBound(1, EagerStep{.loss = -2}), 0.02);
}

TEST(RoundingNoiseTest, MovesWhatIsRounded) {
  const at::Tensor tensor = at::ones({4096}).mul(0.1);
  tensor.slice(0, 0, 4).copy_(at::arange(4));
  tensor[4] = kLowest;
  const at::Tensor moved = MovedWhereRounded(tensor, 1, "x");
  EXPECT_TRUE(at::equal(moved.slice(0, 0, 5), tensor.slice(0, 0, 5)));
  EXPECT_GT(moved.ne(tensor).sum().item<int64_t>(), 1000);
  EXPECT_LT(moved.slice(0, 5).sub(0.1).abs().max().item<double>(), 1e-7);
  EXPECT_FALSE(at::equal(moved, MovedWhereRounded(tensor, 2, "x")));
  for (const auto dtype : {at::kDouble, at::kLong, at::kBool}) {
    EXPECT_TRUE(at::equal(MovedWhereRounded(tensor.to(dtype), 1, "x"), tensor.to(dtype)));
  }
}

TEST(RoundingNoiseTest, WhatOnlyMovesOrChoosesRoundsNothing) {
  for (const char* op : {"aten.mul.Tensor", "aten.sum.dim_IntList", "aten.linear.default",
                         "aten.index_put.default", "aten.select_backward.default"}) {
    EXPECT_TRUE(RoundsResults(op)) << op;
  }
  for (const char* op : {"aten.amax.default", "aten.view.default", "aten.where.self",
                         "aten.detach.default", "aten.topk.default", "aten.slice.Tensor"}) {
    EXPECT_FALSE(RoundsResults(op)) << op;
  }
}

TEST(RoundingNoiseTest, NeitherBelowTheToleranceNorWithoutEnd) {
  EXPECT_EQ(NoiseBound(0, 1e-5), 1e-5);
  EXPECT_EQ(NoiseBound(1e-7, 1e-5), 1e-5);
  EXPECT_EQ(NoiseBound(1e-4, 1e-5), 3e-3);
  EXPECT_EQ(NoiseBound(1, 1e-5), 1e-2);
  EXPECT_EQ(NoiseBound(1, 0.5), 0.5);
  EXPECT_EQ(NoiseBound(std::nan(""), 1e-5), 1e-5);
  EXPECT_EQ(NoiseBound(INFINITY, 1e-5), 1e-5);
}

}  // namespace
}  // namespace autosp
