// Optimizer steps against the formulas of torch.optim, written out with ATen ops.

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/worker/ops/own_op_runner.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

struct AdamWState {
  at::Tensor param, exp_avg, exp_avg_sq;
};

// torch.optim.AdamW, single tensor, step counted from 1.
void ReferenceAdamW(AdamWState& s, const at::Tensor& grad, double lr, int step,
                    double weight_decay) {
  const double beta1 = 0.9;
  const double beta2 = 0.95;
  s.param.mul_(1 - lr * weight_decay);
  s.exp_avg.lerp_(grad, 1 - beta1);
  s.exp_avg_sq.mul_(beta2).addcmul_(grad, grad, 1 - beta2);
  const double step_size = lr / (1 - std::pow(beta1, step));
  const double correction = std::sqrt(1 - std::pow(beta2, step));
  const at::Tensor denominator = (s.exp_avg_sq.sqrt() / correction).add_(1e-8);
  s.param.addcdiv_(s.exp_avg, denominator, -step_size);
}

AdamWState NewState(const at::Tensor& param) {
  return {param.clone(), at::zeros_like(param), at::zeros_like(param)};
}

absl::Status AdamW(std::vector<at::Tensor> params, std::vector<at::Tensor> grads,
                   std::vector<at::Tensor> avgs, std::vector<at::Tensor> squares, double lr,
                   double step, std::vector<at::Tensor> masters, double weight_decay) {
  OwnOpRunner runner("autosp.adamw_");
  runner.Tensors(params).Tensors(grads).Tensors(avgs).Tensors(squares);
  runner.Tensor(at::scalar_tensor(lr)).Tensor(at::scalar_tensor(step));
  if (masters.empty()) {
    runner.Literal(None());
  } else {
    runner.Tensors(masters);
  }
  return runner.Attribute("beta1", 0.9)
      .Attribute("beta2", 0.95)
      .Attribute("eps", 1e-8)
      .Attribute("weight_decay", weight_decay)
      .Run()
      .status();
}

TEST(AdamWTest, FollowsTorchOptimOverSteps) {
  at::manual_seed(2);
  std::vector<AdamWState> ours;
  std::vector<AdamWState> reference;
  for (const int64_t size : {1, 17, 4096}) {
    const at::Tensor param = at::randn({size});
    ours.push_back(NewState(param));
    reference.push_back(NewState(param));
  }
  for (int step = 1; step <= 5; ++step) {
    const double lr = 1e-2 / step;
    std::vector<at::Tensor> params, grads, avgs, squares;
    for (size_t i = 0; i < ours.size(); ++i) {
      grads.push_back(at::randn_like(ours[i].param));
      params.push_back(ours[i].param);
      avgs.push_back(ours[i].exp_avg);
      squares.push_back(ours[i].exp_avg_sq);
      ReferenceAdamW(reference[i], grads[i], static_cast<float>(lr), step, 0.1);
    }
    ASSERT_TRUE(AdamW(params, grads, avgs, squares, lr, step, {}, 0.1).ok());
  }
  for (size_t i = 0; i < ours.size(); ++i) {
    EXPECT_TRUE(at::allclose(ours[i].param, reference[i].param, 1e-6, 1e-7));
    EXPECT_TRUE(at::allclose(ours[i].exp_avg, reference[i].exp_avg, 1e-6, 1e-7));
    EXPECT_TRUE(at::allclose(ours[i].exp_avg_sq, reference[i].exp_avg_sq, 1e-6, 1e-7));
  }
}

TEST(AdamWTest, MastersAreUpdatedAndRoundedIntoParameters) {
  const at::Tensor master = at::randn({33});
  AdamWState reference = NewState(master);
  AdamWState ours = NewState(master);
  const at::Tensor param = master.to(at::kBFloat16);
  for (int step = 1; step <= 3; ++step) {
    const at::Tensor grad = at::randn({33});
    ReferenceAdamW(reference, grad, static_cast<float>(1e-3), step, 0);
    ASSERT_TRUE(
        AdamW({param}, {grad}, {ours.exp_avg}, {ours.exp_avg_sq}, 1e-3, step, {ours.param}, 0)
            .ok());
  }
  EXPECT_TRUE(at::allclose(ours.param, reference.param, 1e-6, 1e-7));
  EXPECT_TRUE(param.equal(ours.param.to(at::kBFloat16)));
}

TEST(AdamWTest, RefusesListsOfDifferentLength) {
  const at::Tensor x = at::zeros({2});
  EXPECT_THAT(std::string(AdamW({x, x}, {x}, {x, x}, {x, x}, 1, 1, {}, 0).message()),
              HasSubstr("1 gradients for 2 parameters"));
}

TEST(SgdTest, FollowsTorchOptimWithMomentumAndDecay) {
  const at::Tensor param = at::randn({50});
  const at::Tensor buffer = at::zeros({50});
  at::Tensor expected = param.clone();
  at::Tensor expected_buffer;
  for (int step = 1; step <= 4; ++step) {
    const at::Tensor grad = at::randn({50});
    const at::Tensor d = grad + 0.01 * expected;
    expected_buffer = step == 1 ? d.clone() : expected_buffer * 0.9 + d;
    expected = expected - 0.1 * expected_buffer;
    ASSERT_TRUE(OwnOpRunner("autosp.sgd_")
                    .Tensors({param})
                    .Tensors({grad})
                    .Tensors({buffer})
                    .Tensor(at::scalar_tensor(0.1))
                    .Literal(None())
                    .Attribute("momentum", 0.9)
                    .Attribute("weight_decay", 0.01)
                    .Run()
                    .ok());
  }
  EXPECT_TRUE(at::allclose(param, expected, 1e-5, 1e-6));
}

TEST(SgdTest, WithoutMomentumIsOneSubtraction) {
  const at::Tensor param = at::ones({3});
  const at::Tensor grad = at::full({3}, 2.0, at::kBFloat16);
  ASSERT_TRUE(OwnOpRunner("autosp.sgd_")
                  .Tensors({param})
                  .Tensors({grad})
                  .Literal(None())
                  .Tensor(at::scalar_tensor(0.25))
                  .Literal(None())
                  .Run()
                  .ok());
  EXPECT_TRUE(param.equal(at::full({3}, 0.5)));
}

}  // namespace
}  // namespace autosp
