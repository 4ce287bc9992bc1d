// Dropouts and draws as PyTorch defines them, for the graph that plans are held against.
#include "compiler/import/exported_draws.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// The graph of one node, written out with the draws that ExpandDraws makes of it.
std::string Written(const std::string& node, const std::string& type = "f32[2, 3, 4]") {
  auto graph =
      ParseGraph(absl::StrCat("graph \"g\" {\n  input %x \"x\" : f32[2, 3, 4]\n  %y = ", node,
                              " : ", type, "\n  return %y\n}\n"));
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

TEST(ExportedDrawsTest, NormalNumbersAreMadeOfTwo) {
  EXPECT_THAT(Written("aten.normal_functional.default(%x, 2.0, 3.0, none)"),
              AllOf(HasSubstr("autosp.uniform(%y_1, 0)"), HasSubstr(", 1) : f32[2, 3, 4]"),
                    HasSubstr(", 3.0) : f32"), HasSubstr(", 2.0, 1) : f32")));
}

}  // namespace
}  // namespace autosp
