#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/worker/ops/own_op_runner.h"
#include "worker/ops/fast_exp.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kIgnore = -100;

struct Loss {
  at::Tensor sum;    // []
  at::Tensor count;  // []
  at::Tensor lse;    // [T]
};

absl::StatusOr<Loss> Forward(const at::Tensor& logits, const at::Tensor& target,
                             int64_t ignore_index = kIgnore) {
  auto results = OwnOpRunner("autosp.cross_entropy_sum", 3)
                     .Tensor(logits)
                     .Tensor(target)
                     .Literal(SymInt(ignore_index))
                     .Run();
  if (!results.ok()) return results.status();
  return Loss{(*results)[0], (*results)[1], (*results)[2]};
}

absl::Status Backward(const at::Tensor& logits, const at::Tensor& target, const at::Tensor& lse,
                      double grad) {
  return OwnOpRunner("autosp.cross_entropy_backward_")
      .Tensor(logits)
      .Tensor(target)
      .Tensor(lse)
      .Tensor(at::scalar_tensor(grad, at::kFloat))
      .Literal(SymInt(kIgnore))
      .Run()
      .status();
}

// The loss and its gradient in fp64 by ATen.
struct Reference {
  double sum;
  at::Tensor grad;
};
Reference ReferenceOf(const at::Tensor& logits, const at::Tensor& target, double grad) {
  const at::Tensor exact = logits.to(at::kDouble);
  const at::Tensor log_probs = at::log_softmax(exact, -1);
  const at::Tensor is_valid = target != kIgnore;
  const at::Tensor safe = target.masked_fill(target == kIgnore, 0).unsqueeze(1);
  const at::Tensor picked = log_probs.gather(1, safe).squeeze(1);
  const at::Tensor onehot = at::zeros_like(exact).scatter(1, safe, 1.0);
  return {-(picked * is_valid).sum().item<double>(),
          (log_probs.exp() - onehot) * is_valid.unsqueeze(1) * grad};
}

class CrossEntropyTest : public testing::TestWithParam<at::ScalarType> {};

TEST_P(CrossEntropyTest, ForwardAndBackwardAreThoseOfTheFormula) {
  at::manual_seed(1);
  for (const int64_t num_classes : {1, 2, 7, 64, 1000, 8193}) {
    at::Tensor logits = (at::randn({37, num_classes}) * 5).to(GetParam());
    at::Tensor target = at::randint(num_classes, {37}, at::kLong);
    target.slice(0, 3, 9).fill_(kIgnore);
    const Reference reference = ReferenceOf(logits, target, 0.25);
    const auto loss = Forward(logits, target);
    ASSERT_TRUE(loss.ok()) << loss.status();
    EXPECT_NEAR(loss->sum.item<double>(), reference.sum, 2e-6 * std::abs(reference.sum) + 1e-5);
    EXPECT_EQ(loss->count.item<double>(), 31);
    EXPECT_TRUE(at::allclose(loss->lse, at::logsumexp(logits.to(at::kDouble), 1).to(at::kFloat),
                             1e-6, 1e-6));
    ASSERT_TRUE(Backward(logits, target, loss->lse, 0.25).ok());
    // lse is rounded to fp32, so fp32 gradients have its relative error of about 1e-6.
    const double tolerance = GetParam() == at::kFloat ? 4e-6 : 4e-3;
    EXPECT_TRUE(at::allclose(logits.to(at::kDouble), reference.grad, tolerance, tolerance * 0.25))
        << num_classes
        << " classes: " << (logits.to(at::kDouble) - reference.grad).abs().max().item<double>();
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, CrossEntropyTest,
                         testing::Values(at::kFloat, at::kBFloat16, at::kHalf),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST(CrossEntropyTest, LargeLogitsDoNotOverflow) {
  at::Tensor logits = at::full({1, 3}, 1e4);
  logits[0][1] = -1e4;
  const auto loss = Forward(logits, at::zeros({1}, at::kLong));
  ASSERT_TRUE(loss.ok()) << loss.status();
  EXPECT_NEAR(loss->sum.item<double>(), std::log(2.0), 1e-2);  // lse is 1e4 in fp32.
}

// An lse near 12 has steps of 1e-6 in fp32, and the loss of a token that is all but certain is less
// than that times a hundred.
TEST(CrossEntropyTest, TokensThatAreNearlyCertainAreExact) {
  at::manual_seed(6);
  const at::Tensor logits = at::randn({64, 20});
  const at::Tensor target = at::randint(20, {64}, at::kLong);
  const at::Tensor raised = logits.scatter_add(1, target.unsqueeze(1), at::full({64, 1}, 12.3));
  for (int64_t t = 0; t < 64; ++t) {
    const at::Tensor row = raised.narrow(0, t, 1).clone();
    const Reference reference = ReferenceOf(row, target.narrow(0, t, 1), 1);
    const auto loss = Forward(row, target.narrow(0, t, 1));
    ASSERT_TRUE(loss.ok()) << loss.status();
    EXPECT_NEAR(loss->sum.item<double>(), reference.sum, 2e-8) << t;
    ASSERT_TRUE(Backward(row, target.narrow(0, t, 1), loss->lse, 1).ok());
    EXPECT_LT((row - reference.grad).abs().max().item<double>(), 2e-8) << t;
  }
}

TEST(CrossEntropyTest, AShardWithoutValidTokensIsZero) {
  at::Tensor logits = at::randn({4, 5});
  const at::Tensor target = at::full({4}, kIgnore, at::kLong);
  const auto loss = Forward(logits, target);
  ASSERT_TRUE(loss.ok()) << loss.status();
  EXPECT_EQ(loss->sum.item<double>(), 0);
  EXPECT_EQ(loss->count.item<double>(), 0);
  ASSERT_TRUE(Backward(logits, target, loss->lse, 1).ok());
  EXPECT_TRUE(logits.equal(at::zeros({4, 5})));
}

TEST(CrossEntropyTest, AShardWithoutTokensIsZero) {
  const auto loss = Forward(at::empty({0, 5}), at::empty({0}, at::kLong));
  ASSERT_TRUE(loss.ok()) << loss.status();
  EXPECT_EQ(loss->sum.item<double>(), 0);
}

TEST(CrossEntropyTest, NotANumberIsNotHidden) {
  at::Tensor logits = at::zeros({2, 40});
  logits[1][33] = std::numeric_limits<float>::quiet_NaN();
  const auto loss = Forward(logits, at::zeros({2}, at::kLong));
  ASSERT_TRUE(loss.ok()) << loss.status();
  EXPECT_TRUE(std::isnan(loss->sum.item<double>()));
}

TEST(CrossEntropyTest, RowsMayHaveAnyStride) {
  const at::Tensor wide = at::randn({6, 20});
  at::Tensor part = wide.narrow(1, 4, 9);
  const at::Tensor target = at::arange(6);
  const auto whole = Forward(part.contiguous(), target);
  const auto loss = Forward(part, target);
  ASSERT_TRUE(loss.ok()) << loss.status();
  EXPECT_TRUE(loss->sum.equal(whole->sum));
  const at::Tensor before = wide.narrow(1, 0, 4).clone();
  ASSERT_TRUE(Backward(part, target, loss->lse, 1).ok());
  EXPECT_TRUE(wide.narrow(1, 0, 4).equal(before));
}

TEST(CrossEntropyTest, RefusesATargetThatIsNoClass) {
  for (const int64_t bad : {-1, 5}) {
    const at::Tensor target = at::tensor({0, 1, static_cast<int>(bad)}, at::kLong);
    const auto loss = Forward(at::randn({3, 5}), target);
    ASSERT_FALSE(loss.ok());
    EXPECT_THAT(std::string(loss.status().message()),
                HasSubstr("target %v1 has class " + std::to_string(bad) + " at local position 2"));
  }
}

TEST(CrossEntropyTest, RefusesOtherShapes) {
  EXPECT_THAT(std::string(Forward(at::randn({3, 5}), at::zeros({4}, at::kLong)).status().message()),
              HasSubstr("must be [T, V] and [T]"));
}

struct FormCase {
  std::string name;
  bool has_weights;
  double smoothing;
  bool is_per_token;
};

class CrossEntropyFormTest : public testing::TestWithParam<FormCase> {};

// Against ATen's loss and its gradient in fp64.
TEST_P(CrossEntropyFormTest, IsThatOfAten) {
  const auto& [name, has_weights, smoothing, is_per_token] = GetParam();
  at::manual_seed(2);
  constexpr int64_t kTokens = 19;
  constexpr int64_t kClasses = 11;
  const at::Tensor logits = at::randn({kTokens, kClasses}) * 3;
  at::Tensor target = at::randint(kClasses, {kTokens}, at::kLong);
  target.slice(0, 2, 5).fill_(4);
  const at::Tensor weights = has_weights ? at::rand({kClasses}) + 0.1 : at::Tensor();
  const at::Tensor grad = is_per_token ? at::rand({kTokens}) : at::scalar_tensor(0.5, at::kFloat);
  const auto with_form = [&](OwnOpRunner runner) {
    runner.Literal(SymInt(4));
    has_weights ? runner.Tensor(weights) : runner.Literal(None{});
    return runner.Literal(smoothing).Run();
  };
  const int num_results = is_per_token ? 2 : 3;
  const auto results = with_form(
      OwnOpRunner(is_per_token ? "autosp.cross_entropy" : "autosp.cross_entropy_sum", num_results)
          .Tensor(logits)
          .Tensor(target));
  ASSERT_TRUE(results.ok()) << results.status();
  const at::Tensor exact = logits.to(at::kDouble).requires_grad_();
  const at::Tensor expected =
      at::cross_entropy_loss(exact, target, has_weights ? weights.to(at::kDouble) : at::Tensor(),
                             is_per_token ? at::Reduction::None : at::Reduction::Sum, 4, smoothing);
  EXPECT_TRUE(at::allclose((*results)[0].to(at::kDouble), expected.detach(), 1e-5, 1e-5));
  at::Tensor own = logits.clone();
  ASSERT_TRUE(with_form(OwnOpRunner("autosp.cross_entropy_backward_")
                            .Tensor(own)
                            .Tensor(target)
                            .Tensor(results->back())
                            .Tensor(grad))
                  .ok());
  (expected * grad.to(at::kDouble)).sum().backward();
  EXPECT_TRUE(at::allclose(own.to(at::kDouble), exact.grad(), 1e-5, 1e-6));
}

INSTANTIATE_TEST_SUITE_P(
    All, CrossEntropyFormTest,
    testing::Values(FormCase{"Plain", false, 0, false}, FormCase{"Weights", true, 0, false},
                    FormCase{"Smoothing", false, 0.1, false}, FormCase{"Both", true, 0.3, false},
                    FormCase{"Uniform", true, 1, false}, FormCase{"TokensPlain", false, 0, true},
                    FormCase{"TokensBoth", true, 0.1, true}),
    [](const auto& info) { return info.param.name; });

TEST(CrossEntropyTest, RefusesOtherWeightsAndSmoothing) {
  const auto run = [](Argument smoothing, const at::Tensor& weights) {
    return OwnOpRunner("autosp.cross_entropy_sum", 3)
        .Tensor(at::randn({3, 5}))
        .Tensor(at::zeros({3}, at::kLong))
        .Literal(SymInt(kIgnore))
        .Tensor(weights)
        .Literal(std::move(smoothing))
        .Run()
        .status();
  };
  EXPECT_TRUE(run(0.5, at::ones({5})).ok());
  EXPECT_THAT(std::string(run(1.5, at::ones({5})).message()), HasSubstr("must be from 0 to 1"));
  EXPECT_THAT(std::string(run(0.5, at::ones({4})).message()),
              HasSubstr("weights [4] must be contiguous f32 of 5 classes"));
  EXPECT_FALSE(run(0.5, at::ones({5}, at::kDouble)).ok());
}

TEST(FastExpTest, IsWithinTwoUnitsInTheLastPlace) {
  for (double x = -87.3; x < 88; x += 0.00137) {
    const auto argument = static_cast<float>(x);
    const double exact = std::exp(static_cast<double>(argument));
    EXPECT_NEAR(FastExp(argument), exact, 2.5e-7 * exact) << argument;
  }
  EXPECT_EQ(FastExp(0), 1);
  EXPECT_EQ(FastExp(-std::numeric_limits<float>::infinity()), 0);
  EXPECT_TRUE(std::isnan(FastExp(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace
}  // namespace autosp
