#include "compiler/ir/number_expr.h"

#include <cmath>
#include <string>

#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

const SymBindings kBindings = {{"s0", 10}, {"s1", 3}};

struct Case {
  std::string text;
  double value;
};

class NumberTexts : public testing::TestWithParam<Case> {};

TEST_P(NumberTexts, AreReadBackAndEvaluated) {
  ASSERT_OK_AND_ASSIGN(const NumberExpr number, NumberExpr::Parse(GetParam().text));
  EXPECT_EQ(number.ToString(), GetParam().text);
  EXPECT_THAT(number.Evaluate(kBindings), IsOkAndHolds(GetParam().value));
}

INSTANTIATE_TEST_SUITE_P(Forms, NumberTexts,
                         testing::Values(Case{"s0", 10}, Case{"0.5", 0.5}, Case{"3", 3},
                                         Case{"pow(s0, -0.5)", std::pow(10.0, -0.5)},
                                         Case{"div(1.0, max(s0 + 2, 4*(s1 - 1)))", 1 / 12.0},
                                         Case{"mul(-1.0, pow(div(s0, s1), 2.0), 3.0)",
                                              -std::pow(10.0 / 3.0, 2.0) * 3.0},
                                         Case{"add(1.0, pow(0.5, s1))", 1.125}));

TEST(NumberExpr, TextsThatAreNoneAreRefused) {
  const auto error = [](const std::string& text) {
    return std::string(NumberExpr::Parse(text).status().message());
  };
  EXPECT_THAT(error(""), HasSubstr("line 1, column 1"));
  EXPECT_THAT(error("pow(s0, 2.0"), HasSubstr("expected ')'"));
  EXPECT_THAT(error("s0, s1"), HasSubstr("end of the number"));
  EXPECT_THAT(error("log(s0)"), HasSubstr("unknown function log"));
  std::string deep;
  for (int i = 0; i < 400; ++i) deep += "add(1.0, ";
  EXPECT_THAT(error(deep), HasSubstr("nested too deeply"));
}

TEST(NumberExpr, HasAValueWhereItIsFinite) {
  const auto error = [](const std::string& text) {
    return std::string(NumberExpr::Parse(text)->Evaluate(kBindings).status().message());
  };
  EXPECT_THAT(error("div(1.0, s0 - 10)"), HasSubstr("no finite number comes of div(1.0, s0 - 10)"));
  EXPECT_THAT(error("pow(-s0, 0.5)"), HasSubstr("no finite number"));
  EXPECT_THAT(error("pow(s2, 0.5)"), HasSubstr("symbol s2 has no value"));
}

TEST(NumberExpr, SymbolsAreReplaced) {
  ASSERT_OK_AND_ASSIGN(const NumberExpr number, NumberExpr::Parse("pow(2*s0, 0.5)"));
  EXPECT_TRUE(number.has_symbol());
  const NumberExpr other = number.Substitute({{"s0", SymExpr::Symbol("s1")}});
  EXPECT_EQ(other.ToString(), "pow(2*s1, 0.5)");
  const NumberExpr known = number.Substitute({{"s0", SymExpr::Const(8)}});
  EXPECT_FALSE(known.has_symbol());
  EXPECT_THAT(known.Evaluate({}), IsOkAndHolds(4.0));
}

}  // namespace
}  // namespace autosp
