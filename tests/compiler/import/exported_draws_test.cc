// Dropouts and draws as PyTorch defines them, for the graph that plans are held against.
#include "compiler/import/exported_draws.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

absl::StatusOr<Graph> GraphOf(const std::string& nodes, const std::string& type,
                              const std::string& result) {
  return ParseGraph(absl::StrCat("graph \"g\" {\n  input %x \"x\" : f32[2, 3, 4]\n  %y = ", nodes,
                                 " : ", type, "\n  return ", result, "\n}\n"));
}

// The graph as plans have it, of some nodes, the first of which is %y and the last of `type`.
std::string Planned(const std::string& nodes, const std::string& type, const std::string& result) {
  auto graph = GraphOf(nodes, type, result);
  if (!graph.ok()) return graph.status().ToString();
  const auto draws = ExpandDraws(*graph);
  return draws.ok() ? PrintGraph(*graph) : draws.status().ToString();
}

// The same graph, written out with the draws that ExpandDraws makes of it.
std::string Written(const std::string& nodes, const std::string& type = "f32[2, 3, 4]",
                    const std::string& result = "%y") {
  auto graph = GraphOf(nodes, type, result);
  if (!graph.ok()) return graph.status().ToString();
  Graph for_plans = *graph;
  const auto draws = ExpandDraws(for_plans);
  if (!draws.ok()) return draws.status().ToString();
  WriteDraws(*graph, *draws);
  const absl::Status valid = VerifyGraph(*graph);
  return valid.ok() ? PrintGraph(*graph) : valid.ToString();
}

TEST(ExportedDrawsTest, DropoutThatDropsNothingIsACopy) {
  for (const char* node :
       {"aten.dropout.default(%x, 0.5, false)", "aten.dropout.default(%x, 0.0, true)",
        "aten.feature_dropout.default(%x, 0.5, false)"}) {
    EXPECT_THAT(Written(node), AllOf(HasSubstr("%y = aten.clone.default(%x, none)"),
                                     Not(HasSubstr("autosp.uniform"))))
        << node;
  }
}

TEST(ExportedDrawsTest, DropoutOfChannelsHasOneNumberForEach) {
  EXPECT_THAT(Written("aten.feature_dropout.default(%x, 0.5, true)"),
              AllOf(HasSubstr("autosp.uniform(%y_1, 0) : f32[2, 3, 1]"),
                    HasSubstr("aten.ge.Scalar(%y_2, 0.5)"), HasSubstr(", 2.0)")));
}

TEST(ExportedDrawsTest, DropoutsAreNumberedAsInPlans) {
  EXPECT_THAT(Written("aten.dropout.default(%x, 0.1, true)"),
              HasSubstr("aten.dropout.default(%x, 0.1, true, 0)"));
}

// A plan keeps what is large: what is drawn with probability p is below it in 1 - u.
TEST(ExportedDrawsTest, ProbabilitiesAreThoseOfTheSameNumbers) {
  EXPECT_THAT(Written("aten.bernoulli.p(%x, 0.25)"),
              AllOf(HasSubstr("autosp.uniform(%y_1, 0)"), HasSubstr("aten.mul.Tensor(%y_2, -1.0)"),
                    HasSubstr("aten.lt.Scalar(%y_4, 0.25)")));
  EXPECT_THAT(Written("aten.bernoulli.Tensor(%x, %x)"),
              AllOf(HasSubstr("aten.lt.Tensor(%y_2, %x)"), Not(HasSubstr("aten.mul.Tensor"))));
}

// In bf16, u has few bits; the probability is that of the number all the same, as in plans.
TEST(ExportedDrawsTest, DrawsThatAreOnlyComparedKeepTheirBits) {
  const std::string written = Written(
      "aten.rand.default([2, 3, 4], bf16, none, none, none) : bf16[2, 3, 4]\n"
      "  %s = aten.add.Tensor(%y, 0.7, 1) : bf16[2, 3, 4]\n"
      "  %f = aten.floor.default(%s) : bf16[2, 3, 4]\n"
      "  %z = aten.sum.default(%f, f32)",
      "f32[]", "%z");
  EXPECT_THAT(written, AllOf(HasSubstr("%s = aten.add.Tensor(%y, 0.7, 1) : f32[2, 3, 4]"),
                             HasSubstr("%f = aten.to.dtype(%f_1, bf16, "),
                             Not(HasSubstr("aten.mul.Tensor"))));
  EXPECT_THAT(Written("aten.rand.default([2, 3, 4], bf16, none, none, none)", "bf16[2, 3, 4]"),
              HasSubstr("256.0"));
}

TEST(ExportedDrawsTest, ProbabilitiesThatAreFilledInAreRounded) {
  EXPECT_THAT(Planned("aten.full.default([4], 0.7, bf16, none, none, none) : bf16[4]\n"
                      "  %z = aten.bernoulli.default(%y, none)",
                      "bf16[4]", "%z"),
              HasSubstr("0.30078125"));
}

TEST(ExportedDrawsTest, ASumThatIsNotFlooredToZeroOrOneIsNoProbability) {
  for (const auto& [shift, is_dropped] :
       {std::pair("0.7", true), std::pair("1.3", false), std::pair("-0.3", false)}) {
    const std::string planned =
        Planned(absl::StrCat("aten.rand.default([2, 3], f32, none, none, none) : f32[2, 3]\n"
                             "  %s = aten.add.Tensor(%y, ",
                             shift, ", 1) : f32[2, 3]\n  %z = aten.floor.default(%s)"),
                "f32[2, 3]", "%z");
    EXPECT_THAT(planned, HasSubstr(is_dropped ? "aten.dropout.default" : "autosp.uniform"));
  }
}

TEST(ExportedDrawsTest, NormalNumbersAreMadeOfTwo) {
  EXPECT_THAT(Written("aten.normal_functional.default(%x, 2.0, 3.0, none)"),
              AllOf(HasSubstr("autosp.uniform(%y_1, 0)"), HasSubstr(", 1) : f32[2, 3, 4]"),
                    HasSubstr(", 3.0) : f32"), HasSubstr(", 2.0, 1) : f32")));
}

}  // namespace
}  // namespace autosp
