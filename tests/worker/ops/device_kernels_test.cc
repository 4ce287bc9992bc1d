// What runs on devices is built from ATen's ops, which CPUs have as well: there it must give what
// the loops of CPUs give.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "tests/worker/ops/own_op_runner.h"
#include "worker/ops/attention_kernels.h"
#include "worker/ops/cross_entropy_device.h"
#include "worker/ops/dropout_device.h"

namespace autosp {
namespace {

struct LossCase {
  std::string name;
  bool has_weights;
  double smoothing;
  at::ScalarType dtype;
};

class DeviceLossTest : public testing::TestWithParam<LossCase> {
 protected:
  static constexpr int64_t kTokens = 9;
  static constexpr int64_t kClasses = 33;
  static constexpr int64_t kIgnored = -100;

  void SetUp() override {
    at::manual_seed(3);
    logits_ = (at::randn({kTokens, kClasses}) * 3).to(GetParam().dtype);
    target_ = at::randint(kClasses, {kTokens}, at::kLong);
    target_[2] = kIgnored;
    target_[8] = kIgnored;
    if (GetParam().has_weights) weights_ = at::rand({kClasses}) + 0.5;
  }

  DeviceLossForm Form() const { return {kIgnored, GetParam().smoothing, weights_}; }

  void AddForm(OwnOpRunner& runner) const {
    runner.Literal(SymInt(kIgnored));
    if (weights_.defined()) {
      runner.Tensor(weights_);
    } else {
      runner.Literal(None{});
    }
    runner.Literal(GetParam().smoothing);
  }

  double Tolerance() const { return GetParam().dtype == at::kFloat ? 1e-5 : 1e-2; }

  at::Tensor logits_, target_, weights_;
};

TEST_P(DeviceLossTest, ForwardIsThatOfTheHost) {
  OwnOpRunner runner("autosp.cross_entropy", 2);
  runner.Tensor(logits_).Tensor(target_);
  AddForm(runner);
  const auto expected = runner.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  const DeviceLoss loss = TokenLossesOnDevice(logits_, target_, Form());
  EXPECT_TRUE(at::allclose(loss.losses, (*expected)[0], 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(loss.lse, (*expected)[1], 1e-5, 1e-5));
  EXPECT_EQ(loss.weights[2].item<float>(), 0);
  if (!weights_.defined()) {
    EXPECT_EQ(loss.weights.sum().item<float>(), kTokens - 2);
  }
}

TEST_P(DeviceLossTest, BackwardIsThatOfTheHost) {
  for (const at::Tensor& grad : {at::full({}, 0.25), at::rand({kTokens})}) {
    const at::Tensor lse = at::logsumexp(logits_.to(at::kFloat), {1});
    const at::Tensor expected = logits_.clone();
    OwnOpRunner runner("autosp.cross_entropy_backward_", 0);
    runner.Tensor(expected).Tensor(target_).Tensor(lse).Tensor(grad);
    AddForm(runner);
    const auto status = runner.Run();
    ASSERT_TRUE(status.ok()) << status.status();
    const at::Tensor actual = logits_.clone();
    LogitGradientsOnDevice(actual, target_, grad, Form());
    EXPECT_TRUE(at::allclose(actual.to(at::kFloat), expected.to(at::kFloat), Tolerance(), 1e-6));
    EXPECT_EQ(actual[2].abs().max().item<float>(), 0);
  }
}

TEST_P(DeviceLossTest, FindsBadTargets) {
  EXPECT_FALSE(HasBadTargets(target_, kClasses, kIgnored));
  for (const int64_t bad : {kClasses, int64_t{-1}}) {
    at::Tensor target = target_.clone();
    target[0] = bad;
    EXPECT_TRUE(HasBadTargets(target, kClasses, kIgnored)) << bad;
  }
}

INSTANTIATE_TEST_SUITE_P(All, DeviceLossTest,
                         testing::Values(LossCase{"Plain", false, 0, at::kFloat},
                                         LossCase{"Weights", true, 0, at::kFloat},
                                         LossCase{"Smoothing", false, 0.2, at::kFloat},
                                         LossCase{"Both", true, 0.2, at::kFloat},
                                         LossCase{"Bf16", true, 0.2, at::kBFloat16}),
                         [](const auto& info) { return info.param.name; });

// Rows and columns of a part of a larger tensor, some of them padding.
TEST(DeviceDropoutTest, KeepsTheSameElements) {
  const int64_t kRows = 5;
  const int64_t kColumns = 301;
  const at::Tensor x = at::rand({kRows, kColumns}) + 1;
  DropoutMask mask;
  mask.key = {0x89abcdef, 7};
  mask.seed_high = 0xfedcba98;
  mask.step = 3;
  mask.threshold = 0x60000000;
  mask.scale = 1.6F;
  // Past 32 bits of a counter, and not at its beginning.
  const std::vector<int64_t> bases = {0, 1000, -1, (int64_t{1} << 34) + 2, 40'000};
  std::vector<int64_t> columns;
  for (int64_t c = 0; c < kColumns; ++c) columns.push_back(c == 17 ? -1 : 3 * c + 1);
  const at::Tensor actual = DropoutOnDevice(x, at::tensor(bases), at::tensor(columns), mask);
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < kColumns; ++c) {
      float expected = 0;
      const float from = x[r][c].item<float>();
      if (bases[r] >= 0 && columns[c] >= 0) {
        Dropout(&from, &expected, 1, static_cast<uint64_t>(bases[r] + columns[c]), mask);
      }
      ASSERT_EQ(actual[r][c].item<float>(), expected) << r << ", " << c;
    }
  }
}

struct ProductsCase {
  std::string name;
  int64_t q_len, k_len;
  bool causal = false;
  bool has_mask = false;
  std::optional<AttentionInputs::Band> band = std::nullopt;
};

// Attention by matrix products against softmax and PyTorch's derivative of it, in fp64.
TEST(ProductsTest, AttentionAndItsGradientsAreThoseOfSoftmax) {
  const std::vector<ProductsCase> cases = {
      {.name = "all", .q_len = 5, .k_len = 8},
      {.name = "causal", .q_len = 7, .k_len = 7, .causal = true},
      {.name = "mask", .q_len = 6, .k_len = 9, .has_mask = true},
      {.name = "band", .q_len = 6, .k_len = 9, .band = AttentionInputs::Band{2, 3}},
  };
  for (const ProductsCase& c : cases) {
    at::manual_seed(4);
    const auto make = [&](int64_t heads, int64_t tokens) {
      return at::randn({2, heads, tokens, 4}, at::kDouble).requires_grad_();
    };
    const at::Tensor q = make(4, c.q_len);
    const at::Tensor k = make(2, c.k_len);
    const at::Tensor v = make(2, c.k_len);
    at::Tensor added = at::zeros({c.q_len, c.k_len}, at::kDouble);
    for (int64_t i = 0; i < c.q_len; ++i) {
      for (int64_t j = 0; j < c.k_len; ++j) {
        const bool is_out = (c.causal && j > i) || (c.has_mask && (i + j) % 3 == 0) ||
                            (c.band && (j < i - c.band->before || j > i + c.band->after));
        if (is_out) added[i][j] = -std::numeric_limits<double>::infinity();
      }
    }
    const auto repeat = [](const at::Tensor& x) { return x.repeat_interleave(2, 1); };
    const at::Tensor scores = at::matmul(q, repeat(k).transpose(2, 3)) * 0.7 + added;
    const at::Tensor out = at::matmul(scores.softmax(-1), repeat(v));
    const at::Tensor grad = at::randn_like(out);
    out.backward(grad);

    const auto fp32 = [](const at::Tensor& x) { return x.detach().to(at::kFloat); };
    AttentionInputs inputs = {.q = fp32(q), .k = fp32(k), .v = fp32(v)};
    inputs.causal = c.causal;
    inputs.scale = 0.7;
    inputs.band = c.band;
    if (c.has_mask) inputs.mask = fp32(added).unsqueeze(0).unsqueeze(0);
    const AttentionOutput output = RunAttention(AttentionKernel::kProducts, inputs);
    EXPECT_TRUE(output.out.allclose(fp32(out), 1e-5, 1e-6)) << c.name;
    EXPECT_TRUE(output.lse.allclose(fp32(scores.logsumexp(-1)), 1e-5, 1e-6)) << c.name;
    const AttentionGradients grads = RunAttentionBackward(AttentionKernel::kProducts, inputs,
                                                          fp32(grad), output.out, output.lse);
    EXPECT_TRUE(grads.q.allclose(fp32(q.grad()), 1e-4, 1e-5)) << c.name;
    EXPECT_TRUE(grads.k.allclose(fp32(k.grad()), 1e-4, 1e-5)) << c.name;
    EXPECT_TRUE(grads.v.allclose(fp32(v.grad()), 1e-4, 1e-5)) << c.name;
  }
}

// A tile's query may have no key in it: it adds nothing, also where its lse is infinite.
TEST(ProductsTest, QueriesWithoutAKeyGiveNothing) {
  AttentionInputs inputs = {.q = at::randn({1, 2, 3, 4}), .k = at::randn({1, 2, 5, 4})};
  inputs.v = at::randn({1, 2, 5, 4});
  at::Tensor mask = at::zeros({1, 1, 3, 5});
  mask.select(2, 1).fill_(-std::numeric_limits<double>::infinity());
  inputs.mask = mask;
  const AttentionOutput output = RunAttention(AttentionKernel::kProducts, inputs);
  EXPECT_TRUE(output.out.select(2, 1).eq(0).all().item<bool>());
  at::Tensor lse = output.lse.clone();
  lse.select(2, 1).fill_(std::numeric_limits<double>::infinity());
  const AttentionGradients grads = RunAttentionBackward(AttentionKernel::kProducts, inputs,
                                                        at::ones_like(output.out), output.out, lse);
  EXPECT_TRUE(grads.q.select(2, 1).eq(0).all().item<bool>());
  EXPECT_TRUE(grads.k.isfinite().all().item<bool>());
}

}  // namespace
}  // namespace autosp
