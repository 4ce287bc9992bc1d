#include "client/verify_report.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

nlohmann::json Report() {
  const nlohmann::json number = {
      {"plan", 5.5}, {"one_device", 5.25}, {"error", 0.1}, {"bound", 1e-5}, {"is_within", false}};
  return {{"mesh", {{"dp", 1}, {"ring", 2}, {"ulysses", 3}, {"accum", 4}}},
          {"job", {{"seq_len", 64}, {"batch_size", 2}}},
          {"data", "of the job"},
          {"weights", "random"},
          {"oracle", "one_device"},
          {"proof", "7 values are placed"},
          {"oracle_detail", "the compiler's own one-device program, because it drops elements"},
          {"is_equal", false},
          {"rule", "entries"},
          {"tolerance", 1e-5},
          {"loss", number},
          {"grad_norm", number},
          {"num_within", 1},
          {"num_unsure", 0},
          {"gradients",
           {{{"name", "b.weight"},
             {"aliases", {"head.weight"}},
             {"error", nullptr},
             {"bound", 1e-5},
             {"scale", 0.5},
             {"rank", 1},
             {"is_within", false},
             {"is_unsure", false}},
            {{"name", "a.weight"},
             {"aliases", nlohmann::json::array()},
             {"error", 1e-7},
             {"bound", 1e-5},
             {"scale", 0.25},
             {"rank", 0},
             {"is_within", true},
             {"is_unsure", false}}}},
          {"not_compared", {{{"name", "c.weight"}, {"why", "frozen"}}}},
          {"warnings", {"add: the number 48 was the sequence length"}}};
}

TEST(VerifyReportTest, SaysWhatDiffers) {
  const std::string text = VerifyReportText(Report());
  EXPECT_THAT(text, HasSubstr("plan     dp 1 x ring 2 x ulysses 3, 4 micro-steps; 2 sequences of "
                              "64 tokens\ndata     of the job\nweights  random\n"
                              "proof    7 values are placed\n"
                              "against  the compiler's own one-device program, because it drops "
                              "elements\n"));
  EXPECT_THAT(text,
              HasSubstr("loss        5.5      not run        5.25     same    0.1    1e-05\n"));
  EXPECT_THAT(text,
              HasSubstr("b.weight = head.weight  not finite    1e-05          0.5     1  differs\n"
                        "a.weight                     1e-07    1e-05         0.25     0\n"));
  EXPECT_THAT(text, HasSubstr("not compared: c.weight (frozen)\n"
                              "warning: add: the number 48 was the sequence length\n"));
  EXPECT_THAT(text, HasSubstr("1 of 2 gradients are within 1e-05: the plan DIFFERS from the "
                              "one-device program\n"));
}

TEST(VerifyReportTest, SaysWhatIsEqual) {
  nlohmann::json report = Report();
  report["is_equal"] = true;
  report["not_compared"] = nlohmann::json::array();
  const std::string text = VerifyReportText(report);
  EXPECT_THAT(text, HasSubstr("the plan equals the one-device program\n"));
  EXPECT_THAT(text, Not(HasSubstr("DIFFERS")));
  EXPECT_THAT(text, Not(HasSubstr("not compared")));
}

TEST(VerifyReportTest, SaysThatTheModelAsExportedIsTheMeasure) {
  nlohmann::json report = Report();
  report["oracle"] = "exported";
  report["loss"]["exported"] = 5.125;
  const std::string text = VerifyReportText(report);
  EXPECT_THAT(text, HasSubstr("loss        5.5        5.125        5.25     same"));
  EXPECT_THAT(text, HasSubstr("the plan DIFFERS from the model as exported\n"));
}

TEST(VerifyReportTest, SaysThatRoundingIsTheMeasure) {
  nlohmann::json report = Report();
  report["noise_factor"] = 30;
  report["gradients"][0]["error"] = 2e-4;
  report["gradients"][0]["bound"] = 3e-3;
  report["gradients"][0]["is_within"] = true;
  const std::string text = VerifyReportText(report);
  EXPECT_THAT(text, HasSubstr("0.0002    0.003          0.5     1\n"));
  EXPECT_THAT(text, HasSubstr("1 of 2 gradients are within what rounding may leave (30 times what "
                              "moving all weights by their last bit does, where that is above "
                              "1e-05): the plan DIFFERS from the one-device program\n"));
  report["oracle"] = "exported";
  report["loss"]["exported"] = 5.125;
  EXPECT_THAT(VerifyReportText(report),
              HasSubstr("(30 times what moving all weights and gradients by their last bit does"));
  report["moves_values"] = true;
  EXPECT_THAT(VerifyReportText(report),
              HasSubstr("moving all weights, results and gradients by their last bit does"));
}

TEST(VerifyReportTest, ABatchWhoseGradientsAreRoundingShowsNothing) {
  nlohmann::json report = Report();
  report["noise_factor"] = 30;
  report["noise_of_gradients"] = 5.5;
  const std::string text = VerifyReportText(report);
  EXPECT_THAT(text, HasSubstr("this batch shows NOTHING"));
  EXPECT_THAT(text, HasSubstr("give another with --batch\n"));
  EXPECT_THAT(text, Not(HasSubstr("DIFFERS")));
}

TEST(VerifyReportTest, WhatRoundsIsHeldAgainstFp32) {
  nlohmann::json report = Report();
  report["rule"] = "norm";
  report["norm"] = {{"error", 0.012}, {"bound", 0.033}, {"is_within", true}};
  report["loss"]["exact"] = 5.375;
  const std::string text = VerifyReportText(report);
  EXPECT_THAT(text, HasSubstr("5.375"));
  EXPECT_THAT(text, HasSubstr("all gradients"));
  EXPECT_THAT(text, HasSubstr("0.012    0.033\n"));
  EXPECT_THAT(text, HasSubstr("1 of 2 gradients are within what rounding may leave against one "
                              "device in fp32: the plan DIFFERS"));
  report["num_unsure"] = 1;
  report["gradients"][1]["is_unsure"] = true;
  const std::string unsure = VerifyReportText(report);
  EXPECT_THAT(unsure, HasSubstr("says little"));
  EXPECT_THAT(unsure, HasSubstr("in fp32 (of 1 that says little, as rounding alone moves it that "
                                "far: the job with precision.params: fp32 tells more): the plan"));
}

}  // namespace
}  // namespace autosp
