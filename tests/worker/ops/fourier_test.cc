// Fourier transforms against sums of waves in fp64, their adjoints, and what they allocate.
#include "compiler/ir/fourier.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "compiler/rules/op_workspace.h"
#include "tests/worker/ops/own_op_runner.h"
#include "worker/executor/device_memory.h"

namespace autosp {
namespace {

struct Case {
  std::string_view op;
  int64_t given, n, length;
  bool flag = false;
  int64_t scale = 0;
};

std::string Describe(const Case& test) {
  return std::string(test.op) + " of " + std::to_string(test.given) + ", n " +
         std::to_string(test.n) + ", length " + std::to_string(test.length) +
         (test.flag ? ", flag" : "") + ", scale " + std::to_string(test.scale);
}

bool TakesPairs(std::string_view op) { return op != kFftR2c; }

absl::StatusOr<std::vector<at::Tensor>> RunCase(const Case& test, const at::Tensor& x,
                                                int64_t dim) {
  return OwnOpRunner(std::string(test.op), 1)
      .Tensor(x)
      .Literal(SymInt(dim))
      .Literal(SymInt(test.n))
      .Literal(SymInt(test.length))
      .Literal(test.flag)
      .Literal(SymInt(test.scale))
      .Run();
}

at::Tensor Result(const Case& test, const at::Tensor& x, int64_t dim) {
  const auto results = RunCase(test, x, dim);
  EXPECT_TRUE(results.ok()) << Describe(test) << ": " << results.status();
  return results.ok() ? results->at(0) : at::Tensor();
}

// How much place k of a spectrum counts, or one of n.
double WeightOf(const Case& test, int64_t k) {
  if (test.op == kFftC2c || !test.flag) return k < test.n ? 1 : 0;
  if (2 * k > test.n) return 0;
  return k == 0 || 2 * k == test.n ? 1 : 2;
}

// By the sums of fourier.h, along the first dimension.
at::Tensor Expected(const Case& test, const at::Tensor& x) {
  const at::Tensor wide = x.to(at::kDouble);
  const bool is_inverse = test.op == kFftC2r || (test.op == kFftC2c && test.flag);
  const auto size = static_cast<double>(test.n);
  const double scale = test.scale == 0 ? 1 : test.scale == 1 ? 1 / std::sqrt(size) : 1 / size;
  std::vector<at::Tensor> rows;
  for (int64_t to = 0; to < test.length; ++to) {
    at::Tensor re = (TakesPairs(test.op) ? wide[0].select(-1, 0) : wide[0]) * 0;
    at::Tensor im = re.clone();
    for (int64_t from = 0; from < test.given && from < test.n; ++from) {
      const double angle = 2 * M_PI * static_cast<double>(to * from % test.n) / size;
      const double weight =
          scale * WeightOf(test, test.op == kFftC2r ? from : to) * (to < test.n ? 1 : 0);
      const double cos = weight * std::cos(angle);
      const double sin = weight * std::sin(angle) * (is_inverse ? 1 : -1);
      const at::Tensor a = TakesPairs(test.op) ? wide[from].select(-1, 0) : wide[from];
      re = re + a * cos;
      im = im + a * sin;
      if (!TakesPairs(test.op)) continue;
      const at::Tensor b = wide[from].select(-1, 1);
      re = re - b * sin;
      im = im + b * cos;
    }
    rows.push_back(test.op == kFftC2r ? re : at::stack({re, im}, -1));
  }
  return at::stack(rows, 0);
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const int64_t n : {1, 2, 7, 8, 12}) {
    for (const int64_t scale : {0, 1, 2}) {
      const int64_t half = n / 2 + 1;
      for (const int64_t given : {n, n + 3, (n + 1) / 2}) {
        cases.push_back({kFftR2c, given, n, half, false, scale});
        cases.push_back({kFftR2c, given, n, half + 2, true, scale});
        cases.push_back({kFftR2c, given, n, n, false, scale});
        cases.push_back({kFftC2c, given, n, n, false, scale});
        cases.push_back({kFftC2c, given, n, n + 1, true, scale});
      }
      for (const int64_t given : {half, half + 2, (half + 1) / 2, n}) {
        cases.push_back({kFftC2r, given, n, n, true, scale});
        cases.push_back({kFftC2r, given, n, (n + 1) / 2, false, scale});
        cases.push_back({kFftC2r, given, n, n + 2, false, scale});
      }
    }
  }
  return cases;
}

at::Tensor Operand(const Case& test) {
  std::vector<int64_t> sizes = {test.given, 3};
  if (TakesPairs(test.op)) sizes.push_back(2);
  return at::randn(sizes);
}

TEST(FourierTest, IsASumOfWaves) {
  at::manual_seed(7);
  for (const Case& test : Cases()) {
    const at::Tensor x = Operand(test);
    const at::Tensor expected = Expected(test, x);
    const at::Tensor y = Result(test, x, 0);
    ASSERT_EQ(y.sizes(), expected.sizes()) << Describe(test);
    EXPECT_TRUE(y.is_contiguous()) << Describe(test);
    EXPECT_TRUE(at::allclose(y.to(at::kDouble), expected, 1e-4, 1e-5)) << Describe(test);
    // Along another dimension, of an operand that lies otherwise.
    const at::Tensor turned = Result(test, x.transpose(0, 1), 1);
    EXPECT_TRUE(at::allclose(turned, y.transpose(0, 1), 1e-5, 1e-6)) << Describe(test);
  }
}

// <F x, y> = <x, G y>, where G is what the backward pass calls.
TEST(FourierTest, TheAdjointIsATransform) {
  at::manual_seed(8);
  for (const Case& test : Cases()) {
    const at::Tensor x = Operand(test).to(at::kDouble);
    Case adjoint = test;
    adjoint.given = test.length;
    adjoint.length = test.given;
    if (test.op == kFftC2c) {
      adjoint.flag = !test.flag;
    } else {
      adjoint.op = test.op == kFftR2c ? kFftC2r : kFftR2c;
    }
    const at::Tensor y = Result(test, x, 0);
    const at::Tensor grad = at::randn(y.sizes(), y.options());
    const at::Tensor back = Result(adjoint, grad, 0);
    ASSERT_EQ(back.sizes(), x.sizes()) << Describe(test);
    const double left = (y * grad).sum().item<double>();
    EXPECT_NEAR(left, (x * back).sum().item<double>(), 1e-9 * (1 + std::abs(left)))
        << Describe(test);
  }
}

TEST(FourierTest, HalfTypesAreTransformedInFloat) {
  const at::Tensor x = at::randn({8, 3}).to(at::kBFloat16);
  const Case test = {kFftR2c, 8, 8, 5};
  const at::Tensor y = Result(test, x, 0);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::allclose(y.to(at::kDouble), Expected(test, x), 1e-2, 1e-2));
}

TEST(FourierTest, DamagedCallsAreRefused) {
  const at::Tensor x = at::ones({8, 3});
  EXPECT_EQ(RunCase({kFftR2c, 8, 0, 1}, x, 0).status().message(),
            "autosp.fft_r2c: of 0 places with scale 0 must be of at least one place, with a "
            "boolean, and a scale from 0 to 2");
  EXPECT_FALSE(RunCase({kFftR2c, 8, 8, 5, false, 3}, x, 0).ok());
}

// Bytes that `run` allocates at its peak, its result among them.
template <typename Run>
int64_t PeakBytes(const Run& run) {
  MemoryAccount account("op");
  const MemoryScope scope(&account);
  const at::Tensor result = run();
  return account.peak_bytes();
}

TEST(FourierTest, AllocatesNoMoreThanPredicted) {
  constexpr int64_t kTokens = 512;
  constexpr int64_t kSmallBytes = 512;
  for (const int64_t n : {kTokens, 2 * kTokens}) {
    for (const Case& test : {Case{kFftR2c, kTokens, n, n / 2 + 1}, Case{kFftR2c, kTokens, n, n},
                             Case{kFftC2r, n / 2 + 1, n, n, true},
                             Case{kFftC2r, n / 2 + 1, n, kTokens}, Case{kFftC2r, n, n, kTokens},
                             Case{kFftC2c, kTokens, n, n}, Case{kFftC2c, n, n, kTokens}}) {
      const at::Tensor x = Operand(test);
      const at::Tensor y = Result(test, x, 0);
      const int64_t predicted = FourierWorkspace({{.numel = x.numel()}}, {{.numel = y.numel()}});
      const int64_t used = PeakBytes([&] { return Result(test, x, 0); });
      EXPECT_LE(used, predicted + y.numel() * 4 + kSmallBytes) << Describe(test);
    }
  }
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  autosp::InstallCountingAllocator();
  return RUN_ALL_TESTS();
}
