// The rules that say when a plan equals its one-device program. Runs of both are in
// tests/process/verify_test.py.
#include "worker/verify/verifier.h"

#include <cmath>
#include <functional>
#include <optional>
#include <vector>

#include "gtest/gtest.h"
#include "worker/verify/verify_rank.h"

namespace autosp {
namespace {

const double kNan = std::nan("");

struct NumberCase {
  const char* what;
  std::vector<double> plan;  // by rank
  ExpectedNumber expected;
  bool is_within;
  double shown;  // of `plan`
};

TEST(CompareNumbersTest, TheRankThatIsFurthestOffCounts) {
  const NumberCase kCases[] = {
      {"the same", {2, 2}, {2}, true, 2},
      {"zero is zero", {0, 0}, {0}, true, 0},
      {"rounding", {2.00001, 2}, {2}, true, 2.00001},
      {"one rank is off", {2, 2.001}, {2}, false, 2.001},
      {"another side", {2, 1.9}, {2}, false, 1.9},
      {"a rank is not a number", {2, kNan}, {2}, false, kNan},
      {"not a number comes first", {kNan, 2}, {2}, false, kNan},
      {"one device is not a number", {2, 2}, {kNan}, false, 2},
      {"bf16, exact", {2}, {2.01, {}, 2}, true, 2},
      {"bf16, as far off as one device", {2.01}, {1.99, {}, 2}, true, 2.01},
      {"bf16, within the floor", {2.003}, {2, {}, 2}, true, 2.003},
      {"bf16, past the floor", {2.005}, {2, {}, 2}, false, 2.005},
      {"bf16, near one device but not the truth", {2.2}, {2.05, {}, 2}, false, 2.2},
      {"as exported", {2}, {2.1, 2}, true, 2},
      {"like one device, but not as exported", {2.1}, {2.1, 2}, false, 2.1},
      {"the rest of terms that cancel", {2e-7, -1e-7}, {0, 0, {}, {}, 1}, true, 2e-7},
      {"more than a rest", {2e-7, -1e-6}, {0, 0, {}, {}, 1}, false, -1e-6},
      {"no rest, but not a number", {2e-7, kNan}, {1, 1, {}, {}, 1e9}, false, kNan},
      {"bf16 has a floor of its own", {2e-7}, {0, 0, 0, {}, 1}, false, 2e-7},
      {"the export is not a number", {2}, {2, kNan}, false, 2},
      {"bf16, the export is exact", {2.003}, {2, 2, 2}, true, 2.003},
      {"bf16, as far off as the export", {2.04}, {2, 2, 2, 2.02}, true, 2.04},
      {"bf16, only one device is as far off", {2.5}, {2.5, 2, 2, 2.001}, false, 2.5},
  };
  for (const NumberCase& c : kCases) {
    SCOPED_TRACE(c.what);
    const NumberComparison result = CompareNumbers(c.plan, c.expected, 1e-5);
    EXPECT_EQ(result.is_within(), c.is_within) << result.error << " of " << result.bound;
    EXPECT_EQ(result.one_device == c.expected.one_device, !std::isnan(c.expected.one_device));
    if (std::isnan(c.shown)) {
      EXPECT_TRUE(std::isnan(result.plan));
    } else {
      EXPECT_EQ(result.plan, c.shown);
    }
  }
}

TEST(BoundByRoundingTest, ALostGradientShowsHoweverSmallItIs) {
  const std::vector<GradientError> rounding = {{.name = "noise", .error = 0.5},
                                               {.name = "lost", .error = 0.02},
                                               {.name = "clean", .error = 1e-4}};
  std::vector<GradientError> errors = {{.name = "noise", .error = 1.2},
                                       {.name = "lost", .error = 1},
                                       {.name = "clean", .error = 0.02}};
  BoundByRounding(rounding, errors);
  ASSERT_EQ(errors.size(), 3);
  VerifierResult result;
  result.gradients = errors;
  EXPECT_EQ(result.num_unsure(), 1) << "noise is";
  EXPECT_EQ(errors[0].name, "lost");
  EXPECT_FALSE(errors[0].is_within());
  EXPECT_TRUE(errors[1].is_within());
  EXPECT_TRUE(errors[2].is_within());
}

VerifierResult EqualResult() {
  VerifierResult result;
  result.tolerance = 1e-5;
  result.loss = {.plan = 1, .one_device = 1, .error = 0, .bound = 1e-5};
  result.grad_norm = result.loss;
  result.gradients = {{.name = "a", .error = 1e-6, .scale = 1, .rank = 1, .bound = 1e-5},
                      {.name = "b", .error = 0, .scale = 1, .rank = 0, .bound = 1e-5}};
  result.norm_error = 1e-3;
  result.norm_bound = 2e-3;
  return result;
}

TEST(VerifierResultTest, EverythingMustBeWithin) {
  EXPECT_TRUE(EqualResult().is_equal());
  VerifierResult loss = EqualResult();
  loss.loss.error = 1e-4;
  EXPECT_FALSE(loss.is_equal());
  VerifierResult norm = EqualResult();
  norm.grad_norm.error = kNan;
  EXPECT_FALSE(norm.is_equal());
  VerifierResult gradient = EqualResult();
  gradient.gradients[0].error = 2e-5;
  EXPECT_FALSE(gradient.is_equal());
  EXPECT_EQ(gradient.num_within(), 1);
}

TEST(VerifierResultTest, WithAnExactProgramTheNormOfAllGradientsCountsToo) {
  VerifierResult result = EqualResult();
  result.has_exact = true;
  result.gradients[0].bound = 0.1;
  result.gradients[0].error = 0.1;
  EXPECT_TRUE(result.is_equal());
  result.gradients[0].error = 0.2;
  EXPECT_FALSE(result.is_equal());
  result.gradients[0].error = 0.1;
  result.norm_error = 3e-3;
  EXPECT_FALSE(result.is_equal());
  result.norm_error = kNan;
  EXPECT_FALSE(result.is_equal());
}

TEST(VerifierResultTest, WhatTheModelRoundsMustBeRounded) {
  VerifierResult result = EqualResult();
  result.has_exact = result.has_rounded = true;
  result.rounded_bound = 1e-4;
  EXPECT_TRUE(result.is_equal());
  result.rounded_error = 2e-4;
  EXPECT_FALSE(result.is_equal());
  EXPECT_EQ(result.ToJson()["rounded"]["is_within"], false);
}

TEST(VerifierResultTest, NothingIsShownWhereGradientsAreRounding) {
  VerifierResult result = EqualResult();
  result.gradients[0].error = 2;
  result.noise_of_gradients = 0.9;
  EXPECT_FALSE(result.shows_nothing());
  EXPECT_FALSE(result.ToJson().contains("noise_of_gradients"));
  result.noise_of_gradients = 1.1;
  EXPECT_TRUE(result.shows_nothing());
  EXPECT_FALSE(result.is_equal());
  EXPECT_EQ(result.ToJson()["noise_of_gradients"], 1.1);
  result.gradients[0].error = 0;
  EXPECT_FALSE(result.shows_nothing()) << "all is equal";
}

struct WorstCase {
  const char* what;
  std::function<void(VerifierResult&)> change;
  bool is_equal;
  const char* worst;
};

TEST(SummaryOfTest, NamesWhatIsFurthestOffForWhatItMayBe) {
  const WorstCase kCases[] = {
      {"all within", [](VerifierResult&) {}, true, "gradient of a"},
      {"a gradient", [](VerifierResult& r) { r.gradients[0].error = 0.5; }, false, "gradient of a"},
      {"the loss, by more", [](VerifierResult& r) { r.loss.error = 0.7; }, false, "loss"},
      {"a norm that is no number", [](VerifierResult& r) { r.grad_norm.error = kNan; }, false,
       "norm of the gradients"},
      {"a batch that shows nothing",
       [](VerifierResult& r) {
         r.gradients[0].error = 2;
         r.noise_of_gradients = 3;
       },
       false,
       "gradient of a (of which this batch shows nothing: rounding alone moves all gradients "
       "further than they are large)"},
      {"nothing is trained", [](VerifierResult& r) { r.gradients.clear(); }, true, "loss"},
      {"rounding, all together",
       [](VerifierResult& r) {
         r.has_exact = true;
         r.gradients[0].error = 0.25;
         r.gradients[0].bound = 0.5;
         r.norm_error = 0.1;
       },
       false, "all gradients together (the worst is that of a, error 0.25)"},
      {"rounding, one gradient",
       [](VerifierResult& r) {
         r.has_exact = true;
         r.gradients[0].error = 0.25;
         r.gradients[0].bound = 0.1;
       },
       false, "gradient of a"},
      {"rounded elsewhere",
       [](VerifierResult& r) {
         r.has_rounded = true;
         r.rounded_bound = 1e-4;
         r.rounded_error = 3e-3;
       },
       false, "all gradients against the model that rounds (the worst is that of a, error 1e-06)"},
  };
  for (const WorstCase& c : kCases) {
    SCOPED_TRACE(c.what);
    VerifierResult result = EqualResult();
    c.change(result);
    const VerificationResult summary = SummaryOf(result, 1.5);
    EXPECT_EQ(summary.is_equal, c.is_equal);
    EXPECT_EQ(summary.worst, c.worst);
    EXPECT_EQ(summary.num_gradients, static_cast<int64_t>(result.gradients.size()));
    EXPECT_EQ(summary.seconds, 1.5);
  }
}

TEST(VerifierResultTest, JsonHasNumbersOrNull) {
  VerifierResult result = EqualResult();
  result.loss.plan = kNan;
  result.loss.error = kNan;
  const nlohmann::json json = result.ToJson();
  EXPECT_EQ(json["is_equal"], false);
  EXPECT_TRUE(json["loss"]["plan"].is_null());
  EXPECT_EQ(json["loss"]["one_device"], 1);
  EXPECT_EQ(json["num_within"], 2);
  EXPECT_EQ(json["gradients"][0]["name"], "a");
  EXPECT_EQ(json["gradients"][0]["rank"], 1);
  EXPECT_FALSE(json.contains("norm"));
  EXPECT_EQ(json["oracle"], "one_device");
  EXPECT_FALSE(json["loss"].contains("exported"));
  result.has_exported = true;
  result.loss.exported = 1.5;
  EXPECT_EQ(result.ToJson()["oracle"], "exported");
  EXPECT_EQ(result.ToJson()["loss"]["exported"], 1.5);
  result.has_exact = true;
  EXPECT_EQ(result.ToJson()["norm"]["bound"], 2e-3);
}

}  // namespace
}  // namespace autosp
