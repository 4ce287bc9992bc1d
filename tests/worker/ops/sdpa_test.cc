// The derivative of attention in squares of queries x keys against the whole. On a CPU,
// by its own kernel.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/worker/ops/own_op_runner.h"

namespace autosp {
namespace {

struct Sizes {
  int64_t heads, kv_heads, q_len, k_len;
  bool causal;
};

class SdpaTest : public testing::Test {
 protected:
  static AttributeMap Attributes(bool causal) {
    return {{"causal", causal}, {"kernel", std::string("flash")}, {"scale", 0.3}};
  }

  void Make(const Sizes& sizes) {
    at::manual_seed(1);
    const auto make = [](int64_t heads, int64_t length) {
      return at::randn({2, length, heads, 16}).transpose(1, 2);
    };
    q = make(sizes.heads, sizes.q_len);
    k = make(sizes.kv_heads, sizes.k_len);
    v = make(sizes.kv_heads, sizes.k_len);
    grad = make(sizes.heads, sizes.q_len);
    OwnOpRunner forward("autosp.sdpa", 2);
    forward.Tensor(q).Tensor(k).Tensor(v).Literal(None{});
    for (const auto& [name, value] : Attributes(sizes.causal)) forward.Attribute(name, value);
    auto results = forward.Run();
    ASSERT_TRUE(results.ok()) << results.status();
    out = (*results)[0];
    lse = (*results)[1];
  }

  absl::StatusOr<std::vector<at::Tensor>> Backward(bool causal, int64_t side,
                                                   const at::Tensor& mask = {}) {
    OwnOpRunner backward("autosp.sdpa_backward", 3);
    for (const at::Tensor& each : {grad, q, k, v, out, lse}) backward.Tensor(each);
    mask.defined() ? backward.Tensor(mask) : backward.Literal(None{});
    for (const auto& [name, value] : Attributes(causal)) backward.Attribute(name, value);
    if (side > 0) backward.Attribute("side", SymInt(side));
    return backward.Run();
  }

  at::Tensor q, k, v, grad, out, lse;
};

TEST_F(SdpaTest, SquaresAddUpToTheWholeDerivative) {
  // The rest of 70 tokens is long enough for a range of its own, that of 10 is not.
  for (const Sizes& sizes :
       {Sizes{4, 4, 256, 256, true}, Sizes{4, 2, 326, 326, true}, Sizes{6, 2, 266, 266, true},
        Sizes{4, 1, 256, 394, false}, Sizes{2, 2, 394, 64, false}, Sizes{2, 2, 100, 100, true}}) {
    Make(sizes);
    const auto whole = Backward(sizes.causal, 0);
    const auto squares = Backward(sizes.causal, 128);
    ASSERT_TRUE(whole.ok() && squares.ok()) << whole.status() << squares.status();
    for (size_t i = 0; i < 3; ++i) {
      const at::Tensor want = (*whole)[i];
      const at::Tensor got = (*squares)[i];
      EXPECT_EQ(got.sizes(), want.sizes());
      EXPECT_LT((got - want).norm().item<double>(), 1e-6 * want.norm().item<double>())
          << sizes.q_len << " x " << sizes.k_len << ", gradient " << i;
    }
  }
}

// As a program lays them out: [B, S, N, H].
TEST_F(SdpaTest, GradientsLieByTokens) {
  Make({4, 2, 256, 256, true});
  const auto squares = Backward(true, 128);
  ASSERT_TRUE(squares.ok()) << squares.status();
  for (const at::Tensor& each : *squares) EXPECT_TRUE(each.transpose(1, 2).is_contiguous());
}

// Sums over squares are not rounded to the type of the operands, as their terms are.
TEST_F(SdpaTest, HalfTypesAreSummedInFp32) {
  Make({2, 1, 1024, 1024, false});
  const auto exact = Backward(false, 0);
  for (at::Tensor* each : {&q, &k, &v, &grad, &out}) *each = each->to(at::kBFloat16);
  const auto whole = Backward(false, 0);
  const auto squares = Backward(false, 64);
  ASSERT_TRUE(exact.ok() && whole.ok() && squares.ok());
  for (size_t i = 0; i < 3; ++i) {
    const auto error = [&](const at::Tensor& got) {
      return (got.to(at::kFloat) - (*exact)[i]).norm().item<double>();
    };
    EXPECT_EQ((*squares)[i].scalar_type(), at::kBFloat16);
    EXPECT_LT(error((*squares)[i]), 1.3 * error((*whole)[i])) << "gradient " << i;
  }
}

TEST_F(SdpaTest, SquaresRefuseWhatTheyCannotCompute) {
  Make({2, 2, 256, 256, true});
  EXPECT_THAT(Backward(false, 128, at::zeros({256, 256})).status().message(),
              testing::HasSubstr("takes no mask"));
  k = k.narrow(2, 0, 200);
  v = v.narrow(2, 0, 200);
  EXPECT_THAT(Backward(true, 128).status().message(),
              testing::HasSubstr("needs as many keys (200) as queries (256)"));
}

}  // namespace
}  // namespace autosp
