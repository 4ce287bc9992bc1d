// Every row of compiler/rules against the real op, on the arguments of op_arguments.txt.
//
// What a rule says of factors is tried: the op runs on shards of its operands, and what comes out
// must be the shard of the whole. What it says of memory is measured by op_memory_test.cc. A row of
// which nothing is tried fails.
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/maximum.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>
#include <string>

#include "common/errors.h"
#include "common/status_macros.h"
#include "tests/worker/rules/op_cases.h"
#include "worker/executor/device_memory.h"

namespace autosp {
namespace {

using OpRuleTest = OpCasesTest;

// Sums over shards are added in another order, and rounded to the type once more.
absl::Status CheckClose(const at::Tensor& actual, const at::Tensor& expected,
                        bool is_of_bf16 = false) {
  if (actual.sizes() != expected.sizes() || actual.scalar_type() != expected.scalar_type()) {
    std::ostringstream message;
    message << "is " << actual.scalar_type() << actual.sizes() << ", and of the whole "
            << expected.scalar_type() << expected.sizes();
    return Internal(message.str());
  }
  if (expected.numel() == 0) return absl::OkStatus();
  const at::Tensor a = actual.to(at::kDouble);
  const at::Tensor b = expected.to(at::kDouble);
  const double scale = b.abs().nan_to_num(0, 0, 0).max().item<double>();
  is_of_bf16 = is_of_bf16 || expected.scalar_type() == at::kBFloat16;
  const double relative = is_of_bf16 ? 3e-2 : expected.is_floating_point() ? 2e-5 : 0;
  if (at::allclose(a, b, relative, relative * scale, /*equal_nan=*/true)) return absl::OkStatus();
  return Internal("differs by ", (a - b).abs().max().item<double>(), " of ", scale);
}

TEST_P(OpRuleTest, HasArguments) { EXPECT_THAT(cases_, testing::Not(testing::IsEmpty())); }

// Of the results of all shards, one that holds the factor is the shard of the whole; one that does
// not is a partial sum or maximum, or the same everywhere.
absl::Status CheckFactor(const OpCase& test, FactorVar factor) {
  Tensors together;
  for (int64_t part = 0; part < test.NumParts(factor); ++part) {
    const at::Tensor first = test.results()[0];
    const auto sizes = test.PartOf(first, test.ResultDims(0), factor, part).sizes().vec();
    ASSIGN_OR_RETURN(const Tensors results, test.Run(test.OperandParts(factor, part), sizes));
    if (results.size() != test.results().size()) return Internal(results.size(), " results");
    together.resize(results.size());
    for (size_t i = 0; i < results.size(); ++i) {
      at::Tensor& sum = together[i];
      if (OpCase::Holds(test.ResultDims(i), factor) || !test.roles().Reduces({factor})) {
        const at::Tensor wanted = test.PartOf(test.results()[i], test.ResultDims(i), factor, part);
        RETURN_IF_ERROR(WithContext(CheckClose(results[i], wanted), "result ", i, " of ", part));
      } else if (!sum.defined()) {
        sum = results[i];
      } else if (test.roles().sum.contains(factor)) {
        sum = sum + results[i];
      } else {
        sum = at::maximum(sum, results[i]);
      }
    }
  }
  for (size_t i = 0; i < together.size(); ++i) {
    if (!together[i].defined()) continue;
    RETURN_IF_ERROR(WithContext(CheckClose(together[i], test.results()[i]), "reduced result ", i));
  }
  return absl::OkStatus();
}

TEST_P(OpRuleTest, ShardsGiveShards) {
  for (const OpCase& test : cases_) {
    for (FactorVar factor : test.SplitFactors()) {
      const absl::Status status = CheckFactor(test, factor);
      EXPECT_TRUE(status.ok()) << test.Describe() << ", split over a factor of "
                               << test.table().Size(factor) << ": " << status;
    }
  }
}

at::Tensor OrZeros(const at::Tensor& gradient, const at::Tensor& operand) {
  return gradient.defined() ? gradient : operand * 0;
}

// The gradient of an operand that holds the factor is the shard of the whole; of one that does not,
// those of all shards add up to it. A partial sum has the gradient of the whole.
absl::Status CheckFactorOfGradients(const OpCase& test, FactorVar factor) {
  const OpCase::Derivative derivative = test.FullDerivative();
  const Tensors grads = test.RandomGradients(derivative.diff);
  const auto all_sizes = test.results()[0].sizes();
  ASSIGN_OR_RETURN(const OpCase::Measured whole,
                   test.Differentiate(derivative, test.operands(), all_sizes, grads));
  Tensors sums(derivative.diff.size());
  for (int64_t part = 0; part < test.NumParts(factor); ++part) {
    Tensors local_grads;
    for (size_t i = 0; i < grads.size(); ++i) {
      const bool has = grads[i].defined();
      local_grads.push_back(has ? test.PartOf(grads[i], test.ResultDims(i), factor, part)
                                : at::Tensor());
    }
    const Tensors operands = test.OperandParts(factor, part);
    const auto sizes =
        test.PartOf(test.results()[0], test.ResultDims(0), factor, part).sizes().vec();
    ASSIGN_OR_RETURN(const OpCase::Measured local,
                     test.Differentiate(derivative, operands, sizes, local_grads));
    for (size_t j = 0; j < sums.size(); ++j) {
      const auto i = static_cast<size_t>(derivative.diff[j]);
      const at::Tensor mine = OrZeros(local.gradients[j], operands[i]);
      const at::Tensor all = OrZeros(whole.gradients[j], test.operands()[i]);
      if (!OpCase::Holds(test.OperandDims(i), factor)) {
        sums[j] = sums[j].defined() ? sums[j] + mine : mine;
        if (part + 1 == test.NumParts(factor)) {
          RETURN_IF_ERROR(WithContext(CheckClose(sums[j], all), "gradients of operand ", i));
        }
        continue;
      }
      const at::Tensor wanted = test.PartOf(all, test.OperandDims(i), factor, part);
      RETURN_IF_ERROR(
          WithContext(CheckClose(mine, wanted), "gradient of operand ", i, " of ", part));
    }
  }
  return absl::OkStatus();
}

// Maxima with a gradient are not taken in parts (ForwardLowering::RolesOf).
TEST_P(OpRuleTest, GradientsOfShardsAreThoseOfTheWhole) {
  for (const OpCase& test : cases_) {
    if (test.differentiable().empty()) continue;
    for (FactorVar factor : test.SplitFactors()) {
      if (test.roles().max.contains(factor)) continue;
      const absl::Status status = CheckFactorOfGradients(test, factor);
      EXPECT_TRUE(status.ok()) << test.Describe() << ", split over a factor of "
                               << test.table().Size(factor) << ": " << status;
    }
  }
}

TEST_P(OpRuleTest, EndsGradientsWhereItSaysSo) {
  for (const OpCase& test : cases_) {
    const bool ends = test.rule().derivative == Derivative::kZero;
    if (!ends || test.differentiable().empty()) continue;
    const auto all =
        test.Differentiate(test.FullDerivative(), test.operands(), test.results()[0].sizes(),
                           test.RandomGradients(test.differentiable()));
    ASSERT_TRUE(all.ok()) << test.Describe() << ": " << all.status();
    for (const at::Tensor& gradient : all->gradients) {
      const bool is_zero = !gradient.defined() || gradient.abs().max().item<double>() == 0;
      EXPECT_TRUE(is_zero) << test.Describe() << " has a gradient";
    }
  }
}

// f(a + b) = f(a) + f(b) in operand 0, where shards hold a and b.
TEST_P(OpRuleTest, LinearOpsMapPartialSums) {
  for (const OpCase& test : cases_) {
    // Of truth values there are no partial sums.
    const bool is_linear = IsLinear(test.rule(), test.graph(), test.node());
    if (!is_linear || test.operands()[0].scalar_type() == at::kBool) continue;
    const bool is_of_bf16 = test.operands()[0].scalar_type() == at::kBFloat16;
    const auto sizes = test.results()[0].sizes();
    Tensors parts[2] = {test.operands(), test.operands()};
    parts[0][0] = test.operands()[0].flip({0});
    parts[1][0] = test.operands()[0] - parts[0][0];
    const auto a = test.Run(parts[0], sizes);
    const auto b = test.Run(parts[1], sizes);
    ASSERT_TRUE(a.ok() && b.ok()) << test.Describe() << a.status() << b.status();
    for (size_t i = 0; i < a->size(); ++i) {
      const absl::Status status = CheckClose((*a)[i] + (*b)[i], test.results()[i], is_of_bf16);
      EXPECT_TRUE(status.ok()) << test.Describe() << ": result " << i << " " << status;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, OpRuleTest, testing::ValuesIn(AllOps()), OpTestName);

TEST(OpArgumentsTest, AreOfRules) {
  for (const auto& [op, sets] : AllArguments()) EXPECT_NE(FindOpRule(op), nullptr) << op;
}

TEST(OpArgumentsTest, LinesThatAreNoneAreRefused) {
  for (const char* line : {"aten.neg.default f32[4]", "aten.neg.default : f32[4", "a : f33[4]",
                           "aten.neg.default : f32[4] f32[4]", "a : i64[4]<x", "a : %y"}) {
    EXPECT_FALSE(ReadArgumentSets(line).ok()) << line;
  }
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  autosp::InstallCountingAllocator();
  return RUN_ALL_TESTS();
}
