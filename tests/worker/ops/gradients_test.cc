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

at::Tensor Norm(std::vector<at::Tensor> grads) {
  auto results = OwnOpRunner("autosp.grad_norm", 1).Tensors(std::move(grads)).Run();
  return results.ok() ? (*results)[0] : at::Tensor();
}

TEST(GradNormTest, IsTheNormOfAllTogether) {
  at::manual_seed(3);
  std::vector<at::Tensor> grads = {at::randn({100'003}), at::randn({64, 33}).t(),
                                   at::randn({7}).to(at::kBFloat16),
                                   at::randn({40, 9}).narrow(1, 2, 5)};
  double expected = 0;
  for (const at::Tensor& grad : grads) expected += grad.to(at::kDouble).pow(2).sum().item<double>();
  EXPECT_NEAR(Norm(grads).item<double>(), std::sqrt(expected), 1e-6 * std::sqrt(expected));
  EXPECT_EQ(Norm({at::zeros({3})}).item<double>(), 0);
  EXPECT_TRUE(std::isinf(Norm({at::full({3}, INFINITY)}).item<double>()));
}

TEST(ClipTest, ScalesOnlyAboveTheLimit) {
  for (const double norm : {0.5, 10.0}) {
    const at::Tensor grad = at::full({4}, norm / 2);
    ASSERT_TRUE(OwnOpRunner("autosp.clip_")
                    .Tensors({grad})
                    .Tensor(at::scalar_tensor(norm))
                    .Attribute("max_norm", 1.0)
                    .Run()
                    .ok());
    const double scale = norm > 1 ? 1 / (norm + 1e-6) : 1;
    EXPECT_TRUE(at::allclose(grad, at::full({4}, norm / 2 * scale), 1e-6, 0));
  }
}

TEST(ClipTest, RefusesALimitOfZero) {
  EXPECT_THAT(std::string(OwnOpRunner("autosp.clip_")
                              .Tensors({})
                              .Tensor(at::scalar_tensor(1))
                              .Attribute("max_norm", SymInt(0))
                              .Run()
                              .status()
                              .message()),
              HasSubstr("max_norm (0) must be positive"));
}

absl::Status MatmulAccumulate(const at::Tensor& dst, const at::Tensor& a, const at::Tensor& b,
                              int64_t beta) {
  return OwnOpRunner("autosp.matmul_accumulate_")
      .Tensor(dst)
      .Tensor(a)
      .Tensor(b)
      .Attribute("beta", SymInt(beta))
      .Run()
      .status();
}

TEST(MatmulAccumulateTest, AddsTheProduct) {
  const at::Tensor a = at::randn({1300, 6});
  const at::Tensor b = at::randn({1300, 4});
  const at::Tensor start = at::randn({6, 4});
  for (const int64_t beta : {0, 1}) {
    const at::Tensor dst = start.clone();
    ASSERT_TRUE(MatmulAccumulate(dst, a, b, beta).ok());
    EXPECT_TRUE(at::allclose(dst, start * beta + at::matmul(a.t(), b), 1e-5, 1e-4));
  }
}

TEST(MatmulAccumulateTest, SumsHalfTypesInFp32) {
  const at::Tensor a = at::randn({1300, 6}).to(at::kBFloat16);
  const at::Tensor b = at::randn({1300, 4}).to(at::kBFloat16);
  const at::Tensor dst = at::full({6, 4}, 1e30);
  ASSERT_TRUE(MatmulAccumulate(dst, a, b, 0).ok());
  const at::Tensor exact = at::matmul(a.to(at::kDouble).t(), b.to(at::kDouble)).to(at::kFloat);
  EXPECT_TRUE(at::allclose(dst, exact, 1e-5, 1e-4));
}

TEST(MatmulAccumulateTest, RefusesOtherShapes) {
  EXPECT_THAT(
      std::string(
          MatmulAccumulate(at::zeros({4, 6}), at::zeros({3, 6}), at::zeros({3, 4}), 0).message()),
      HasSubstr("must be [out, in], [T, out], [T, in]"));
}

}  // namespace
}  // namespace autosp
