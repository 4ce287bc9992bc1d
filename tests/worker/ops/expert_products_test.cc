// Products of rows with the matrices of their experts against one product for each row.
#include "compiler/rules/expert_products.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/worker/ops/own_op_runner.h"
#include "worker/executor/device_memory.h"

namespace autosp {
namespace {

constexpr int64_t kExperts = 5;
constexpr int64_t kWidth = 6;  // no multiple of 16 bytes, which kernels of groups ask for
constexpr int64_t kResults = 3;

// The last expert has no row, and the first is met last.
at::Tensor Experts() { return at::tensor({3, 1, 1, 0, 3, 2, 1, 0}, at::kLong); }

at::Tensor Forward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& experts) {
  auto results =
      OwnOpRunner(std::string(kExpertMm), 1).Tensor(x).Tensor(weight).Tensor(experts).Run();
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() ? (*results)[0] : at::Tensor();
}

at::Tensor WeightGrad(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& experts,
                      bool transposed = false) {
  auto results = OwnOpRunner(std::string(kExpertMmWeightGrad), 1)
                     .Tensor(grad)
                     .Tensor(x)
                     .Tensor(experts)
                     .Literal(SymInt(kExperts))
                     .Literal(transposed)
                     .Run();
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() ? (*results)[0] : at::Tensor();
}

at::Tensor RowByRow(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& experts) {
  return at::einsum("...k,...kn->...n", {x, weight.index({experts})});
}

at::Tensor SumsByRow(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& experts) {
  const at::Tensor chosen = at::one_hot(experts, kExperts).to(x.scalar_type());
  return at::einsum("...e,...k,...n->ekn", {chosen, x, grad});
}

TEST(ExpertProductsTest, EachRowMeetsItsMatrix) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({8, kWidth});
  const at::Tensor weight = at::randn({kExperts, kWidth, kResults});
  const at::Tensor y = Forward(x, weight, Experts());
  EXPECT_TRUE(y.is_contiguous());
  EXPECT_TRUE(at::allclose(y, RowByRow(x, weight, Experts()), 1e-5, 1e-6));
}

TEST(ExpertProductsTest, MatricesMayBeTransposed) {
  at::manual_seed(2);
  const at::Tensor x = at::randn({8, kWidth});
  const at::Tensor weight = at::randn({kExperts, kResults, kWidth}).transpose(1, 2);
  EXPECT_TRUE(
      at::allclose(Forward(x, weight, Experts()), RowByRow(x, weight, Experts()), 1e-5, 1e-6));
}

// Each token stands for two rows.
TEST(ExpertProductsTest, TokensThatAreRepeatedAreAView) {
  at::manual_seed(3);
  const at::Tensor x = at::randn({4, 1, kWidth}).expand({4, 2, kWidth});
  const at::Tensor weight = at::randn({kExperts, kWidth, kResults});
  const at::Tensor grad = at::randn({4, 2, kResults});
  const at::Tensor experts = Experts().view({4, 2});
  EXPECT_TRUE(at::allclose(Forward(x, weight, experts), RowByRow(x, weight, experts), 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(WeightGrad(grad, x, experts), SumsByRow(grad, x, experts), 1e-5, 1e-6));
}

TEST(ExpertProductsTest, GradientsOfMatricesAreSumsOverTheirRows) {
  at::manual_seed(4);
  const at::Tensor x = at::randn({8, kWidth});
  const at::Tensor grad = at::randn({kResults, 8}).t();
  const at::Tensor dw = WeightGrad(grad, x, Experts());
  EXPECT_TRUE(dw.is_contiguous());
  EXPECT_TRUE(at::allclose(dw, SumsByRow(grad, x, Experts()), 1e-5, 1e-6));
  EXPECT_TRUE(at::equal(dw[kExperts - 1], at::zeros({kWidth, kResults})));
  const at::Tensor as_it_lies = WeightGrad(grad, x, Experts(), /*transposed=*/true);
  EXPECT_TRUE(as_it_lies.is_contiguous());
  EXPECT_TRUE(at::allclose(as_it_lies, dw.transpose(1, 2), 1e-5, 1e-6));
}

TEST(ExpertProductsTest, InBf16) {
  at::manual_seed(5);
  const at::Tensor x = at::randn({8, kWidth}).to(at::kBFloat16);
  const at::Tensor weight = at::randn({kExperts, kWidth, kResults}).to(at::kBFloat16);
  const at::Tensor y = Forward(x, weight, Experts());
  const at::Tensor expected = RowByRow(x.to(at::kFloat), weight.to(at::kFloat), Experts());
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::allclose(y.to(at::kFloat), expected, 1e-2, 1e-2));
}

TEST(ExpertProductsTest, NoRowsAreNoRows) {
  const at::Tensor x = at::randn({0, kWidth});
  const at::Tensor none = at::zeros({0}, at::kLong);
  EXPECT_EQ(Forward(x, at::randn({kExperts, kWidth, kResults}), none).numel(), 0);
  EXPECT_TRUE(at::equal(WeightGrad(at::randn({0, kResults}), x, none),
                        at::zeros({kExperts, kWidth, kResults})));
}

TEST(ExpertProductsTest, NamesAnExpertThatThereIsNot) {
  for (const int64_t wrong : {kExperts, int64_t{-1}}) {
    at::Tensor experts = Experts();
    experts[4] = wrong;
    const auto results = OwnOpRunner(std::string(kExpertMm), 1)
                             .Tensor(at::randn({8, kWidth}))
                             .Tensor(at::randn({kExperts, kWidth, kResults}))
                             .Tensor(experts)
                             .Run();
    EXPECT_EQ(results.status().message(),
              "autosp.expert_mm: a row names expert " + std::to_string(wrong) +
                  ", but there are 5, from 0 on; let the router choose among those");
  }
}

// Bytes that `run` allocates at its peak, its result among them.
template <typename Run>
int64_t PeakBytes(const Run& run) {
  MemoryAccount account("op");
  const MemoryScope scope(&account);
  const at::Tensor result = run();
  return account.peak_bytes();
}

TensorExtent ExtentOf(const at::Tensor& tensor) {
  const bool is_index = tensor.scalar_type() == at::kLong;
  return {.numel = tensor.numel(), .dtype = is_index ? DType::kI64 : DType::kF32};
}

TEST(ExpertProductsTest, AllocatesNoMoreThanPredicted) {
  constexpr int64_t kRows = 512;
  for (const int64_t width : {2, 64}) {
    at::manual_seed(6);
    const at::Tensor x = at::randn({kRows, width});
    const at::Tensor weight = at::randn({kExperts, width, width});
    const at::Tensor experts = at::randint(kExperts, {kRows}, at::kLong);
    const at::Tensor grad = at::randn({kRows, width});
    const int64_t forward =
        ExpertMmWorkspace({ExtentOf(x), ExtentOf(weight), ExtentOf(experts)}, {ExtentOf(grad)}) +
        grad.numel() * 4;
    const int64_t backward =
        ExpertMmWeightGradWorkspace({ExtentOf(grad), ExtentOf(x), ExtentOf(experts)}) +
        weight.numel() * 4;
    // Ends of groups, and numbers of experts.
    constexpr int64_t kSmallBytes = 512;
    const int64_t used = PeakBytes([&] { return Forward(x, weight, experts); });
    const int64_t used_backward = PeakBytes([&] { return WeightGrad(grad, x, experts); });
    EXPECT_LE(used, forward + kSmallBytes) << width;
    EXPECT_LE(used_backward, backward + kSmallBytes) << width;
    EXPECT_GE(used * 10, forward * 7) << width;
    EXPECT_GE(used_backward * 10, backward * 7) << width;
  }
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  autosp::InstallCountingAllocator();
  return RUN_ALL_TESTS();
}
