#include "worker/verify/comparison.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

at::Tensor Vector(const std::vector<double>& values) { return at::tensor(values, at::kFloat); }

struct EntryCase {
  const char* what;
  std::vector<double> actual;
  std::vector<double> expected;
  double largest_of_all;  // of another gradient, which is right
  double error;
};

TEST(GradientComparisonTest, MeasuresEntriesInPartsOfTheLargest) {
  const EntryCase kCases[] = {
      {"the same", {1, 2}, {1, 2}, 0, 0},
      {"in parts of its own largest entry", {1, 3}, {1, 2}, 1, 0.5},
      {"the sign is part of it", {-2, 2}, {2, 2}, 0, 2},
      {"rounding noise beside a large gradient", {1e-9, 0}, {0, 0}, 10, 1e-8},
      {"an expected zero of a zero model", {1, 0}, {0, 0}, 0, kInfinity},
      {"all zero", {0, 0}, {0, 0}, 0, 0},
      {"not a number", {std::nan(""), 2}, {1, 2}, 0, kInfinity},
      {"infinite", {kInfinity, 2}, {1, 2}, 0, kInfinity},
      {"not a number where one was expected", {1, 2}, {std::nan(""), 2}, 0, kInfinity},
  };
  for (const EntryCase& c : kCases) {
    SCOPED_TRACE(c.what);
    const at::Tensor other = Vector({c.largest_of_all});
    const NamedTensors expected = {{"other", other}, {"w", Vector(c.expected)}};
    GradientComparison comparison(expected);
    ASSERT_THAT(comparison.Add("w", 0, Vector(c.actual), Vector(c.expected)), IsOk());
    ASSERT_THAT(comparison.Add("other", 0, other, other), IsOk());
    const std::vector<GradientError> errors = comparison.Errors();
    ASSERT_EQ(errors.size(), 2u);
    EXPECT_EQ(errors[0].name == "w", c.error > 0);
    if (std::isinf(c.error)) {
      EXPECT_EQ(errors[0].error, c.error);
    } else {
      EXPECT_NEAR(errors[0].error, c.error, 1e-6 * c.error);
    }
  }
}

// A counter of millions beside gradients hides none of them, and they hide no small average.
TEST(GradientComparisonTest, MeasuresEachBufferByItself) {
  const NamedTensors expected = {{"buffer:count", at::tensor({4e6}, at::kDouble)},
                                 {"buffer:mean", at::tensor({1e-4}, at::kDouble)},
                                 {"w", Vector({1, 2})}};
  GradientComparison comparison(expected);
  const auto add = [&](const char* name, const at::Tensor& actual) {
    ASSERT_THAT(comparison.Add(name, 0, actual, expected.find(name)->second), IsOk());
  };
  add("buffer:count", at::tensor({int64_t{4000001}}, at::kLong));
  add("buffer:mean", at::tensor({1.5e-4}, at::kDouble));
  add("w", Vector({1, 2.5}));
  const std::vector<GradientError> errors = comparison.Errors();
  ASSERT_EQ(errors.size(), 3u);
  EXPECT_EQ(errors[0].name, "buffer:mean");
  EXPECT_NEAR(errors[0].error, 0.5, 1e-6);
  EXPECT_EQ(errors[1].name, "w");
  EXPECT_NEAR(errors[1].error, 0.25, 1e-6);
  EXPECT_NEAR(errors[2].error, 2.5e-7, 1e-12);
  EXPECT_NEAR(comparison.NormError(), 0.5 / std::sqrt(5.0), 1e-6);
}

TEST(GradientComparisonTest, NamesTheWorstGradientAndRank) {
  const NamedTensors expected = {
      {"a", Vector({1, 1})}, {"b", Vector({1, 1})}, {"c", Vector({1, 1})}};
  GradientComparison comparison(expected);
  const auto add = [&](const char* name, int64_t rank, double first) {
    ASSERT_THAT(comparison.Add(name, rank, Vector({first, 1}), expected.find(name)->second),
                IsOk());
  };
  add("a", 0, 1);
  add("a", 1, 1.25);
  add("b", 0, 1.5);
  add("b", 1, 1);
  add("c", 0, 1);
  add("c", 1, 1);
  const std::vector<GradientError> errors = comparison.Errors();
  ASSERT_EQ(errors.size(), 3u);
  EXPECT_EQ(errors[0].name, "b");
  EXPECT_EQ(errors[0].rank, 0);
  EXPECT_EQ(errors[1].name, "a");
  EXPECT_EQ(errors[1].rank, 1);
  EXPECT_EQ(errors[2].error, 0);
  // Rank 0 is off by 0.5, rank 1 by 0.25, of sqrt(6).
  EXPECT_NEAR(comparison.NormError(), 0.5 / std::sqrt(6.0), 1e-9);
}

TEST(GradientComparisonTest, ANormThatIsNotANumberIsInfinite) {
  const NamedTensors expected = {{"a", Vector({1, 1})}};
  GradientComparison comparison(expected);
  ASSERT_THAT(comparison.Add("a", 0, Vector({std::nan(""), 1}), expected.at("a")), IsOk());
  EXPECT_EQ(comparison.NormError(), kInfinity);
}

TEST(GradientComparisonTest, RefusesWhatHasNoCounterpart) {
  const NamedTensors expected = {{"a", Vector({1, 1})}};
  GradientComparison comparison(expected);
  EXPECT_THAT(comparison.Add("b", 0, Vector({1, 1}), Vector({1, 1})),
              IsError(absl::StatusCode::kNotFound, HasSubstr("gradient b: nothing to compare")));
  EXPECT_THAT(comparison.Add("a", 3, Vector({1, 1, 1}), Vector({1, 1})),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("has [3] on rank 3")));
}

}  // namespace
}  // namespace autosp
