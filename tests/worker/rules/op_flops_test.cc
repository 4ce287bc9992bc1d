// The operations that every row of compiler/rules states against the products that the real op
// makes. See op_rule_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "compiler/ir/argument_access.h"
#include "tests/worker/rules/op_cases.h"
#include "tests/worker/rules/product_observer.h"

namespace autosp {
namespace {

using OpFlopsTest = OpCasesTest;

OpFlops StatedFlops(const OpCase& test, const Tensors& operands, const Tensors& results,
                    const std::vector<int>& diff) {
  if (test.rule().flops == nullptr) return {};
  OpCall call{.args = test.node().args};
  for (const at::Tensor& tensor : operands) call.operands.push_back(tensor.sizes().vec());
  for (const at::Tensor& tensor : results) call.results.push_back(tensor.sizes().vec());
  call.needs_grad.assign(operands.size(), false);
  for (int i : diff) call.needs_grad[i] = true;
  return test.rule().flops(call);
}

bool IsAttention(const OpCase& test) {
  return test.node().op == kSdpa || test.node().op == kMaskedAttention;
}

bool Attends(int64_t query, int64_t key, bool causal, int64_t window) {
  if (causal && key > query) return false;
  return window == 0 || (query - key < window && (causal || key - query < window));
}

// Of the pairs of query and key, the part that the arguments leave; documents count as one.
double AttendedPart(const OpCase& test) {
  const std::vector<Argument>& args = test.node().args;
  const bool causal = FlagArgument(args, 5).value_or(false);
  const int64_t window =
      test.node().op == kMaskedAttention ? IntegerArgument(args, 6).value_or(0) : 0;
  const int64_t q_len = test.operands()[0].size(-2);
  const int64_t k_len = test.operands()[1].size(-2);
  double attended = 0;
  for (int64_t i = 0; i < q_len; ++i) {
    for (int64_t j = 0; j < k_len; ++j) attended += Attends(i, j, causal, window) ? 1 : 0;
  }
  return attended / static_cast<double>(q_len * k_len);
}

// What runs in no kernel for attention multiplies all pairs, and keeps its scores for the backward.
double ScoresFlops(const OpCase& test) {
  const at::Tensor& q = test.operands()[0];
  return 2 * static_cast<double>(q.numel()) * static_cast<double>(test.operands()[1].size(-2));
}

struct Observed {
  double flops = 0;
  bool is_fused = false;
};
Observed ObserveRun(const OpCase& test) {
  const ProductObserver observer;
  EXPECT_TRUE(test.Run(test.operands(), test.results()[0].sizes()).ok()) << test.Describe();
  return {observer.flops(), observer.has_fused_attention()};
}

// A recorded op and its derivative.
Observed ObserveDerivative(const OpCase& test, const std::vector<int>& diff) {
  OpCase::Derivative derivative = test.FullDerivative();
  derivative.diff = diff;
  const Tensors grads = test.RandomGradients(diff);
  const ProductObserver observer;
  const auto measured =
      test.Differentiate(derivative, test.operands(), test.results()[0].sizes(), grads);
  EXPECT_TRUE(measured.ok()) << test.Describe() << ": " << measured.status();
  return {observer.flops(), observer.has_fused_attention()};
}

TEST_P(OpFlopsTest, ForwardIsWhatTheOpMultiplies) {
  for (const OpCase& test : cases_) {
    const double part = IsAttention(test) ? AttendedPart(test) : 1;
    EXPECT_DOUBLE_EQ(StatedFlops(test, test.operands(), test.results(), {}).forward,
                     ObserveRun(test).flops * part)
        << test.Describe();
  }
}

// All operands that can have a gradient; attention has one kernel for all of them. Of others each
// alone as well.
TEST_P(OpFlopsTest, BackwardIsWhatTheDerivativeMultiplies) {
  for (const OpCase& test : cases_) {
    if (test.differentiable().empty()) continue;
    std::vector<std::vector<int>> wanted = {test.differentiable()};
    for (int i : test.differentiable()) {
      if (!IsAttention(test)) wanted.push_back({i});
    }
    for (const std::vector<int>& diff : wanted) {
      const Observed both = ObserveDerivative(test, diff);
      double expected = both.flops - ObserveRun(test).flops;
      if (IsAttention(test)) {
        if (!both.is_fused) expected += ScoresFlops(test);
        expected *= AttendedPart(test);
      }
      EXPECT_DOUBLE_EQ(StatedFlops(test, test.operands(), test.results(), diff).backward, expected)
          << test.Describe() << ", gradients of " << testing::PrintToString(diff);
    }
  }
}

// Ranks share the work of what is split. Of a sum that is split each has a part, on which an einsum
// of more operands goes on as on the whole.
TEST_P(OpFlopsTest, ShardsShareTheWork) {
  for (const OpCase& test : cases_) {
    const std::vector<int>& diff = test.differentiable();
    const OpFlops whole = StatedFlops(test, test.operands(), test.results(), diff);
    for (FactorVar factor : test.SplitFactors()) {
      Tensors results;
      for (size_t i = 0; i < test.results().size(); ++i) {
        results.push_back(test.PartOf(test.results()[i], test.ResultDims(i), factor, 0));
      }
      const OpFlops part = StatedFlops(test, test.OperandParts(factor, 0), results, diff);
      const auto num_parts = static_cast<double>(test.NumParts(factor));
      const bool goes_on = test.roles().sum.contains(factor) && test.operands().size() > 2;
      if (goes_on) {
        EXPECT_GE(part.forward * num_parts, whole.forward) << test.Describe();
        EXPECT_LE(part.forward, whole.forward) << test.Describe();
      } else {
        EXPECT_DOUBLE_EQ(part.forward * num_parts, whole.forward) << test.Describe();
        EXPECT_DOUBLE_EQ(part.backward * num_parts, whole.backward) << test.Describe();
      }
    }
  }
}

TEST(AttendedPairsTest, AreThoseOfEachQueryAndKey) {
  for (int64_t q_len : {0, 1, 5, 8}) {
    for (int64_t k_len : {0, 1, 5, 9}) {
      for (int64_t window : {0, 1, 3, 20}) {
        for (bool causal : {false, true}) {
          double pairs = 0;
          for (int64_t i = 0; i < q_len; ++i) {
            for (int64_t j = 0; j < k_len; ++j) pairs += Attends(i, j, causal, window) ? 1 : 0;
          }
          EXPECT_EQ(AttendedPairs(q_len, k_len, causal, window), pairs)
              << q_len << " x " << k_len << ", causal " << causal << ", window " << window;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, OpFlopsTest, testing::ValuesIn(AllOps()), OpTestName);

}  // namespace
}  // namespace autosp
