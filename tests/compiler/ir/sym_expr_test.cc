#include "compiler/ir/sym_expr.h"

#include <string>

#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;
using Op = SymExpr::Op;

const SymBindings kBindings = {{"s0", 7}, {"s1", 3}};

struct Case {
  std::string text;
  int64_t value;
  std::string printed;  // the one form; empty: the same as `text`
};

class SymExprText : public testing::TestWithParam<Case> {};

TEST_P(SymExprText, EvaluatesAndRoundTrips) {
  const Case& test = GetParam();
  ASSERT_OK_AND_ASSIGN(const SymExpr expr, SymExpr::Parse(test.text));
  EXPECT_THAT(expr.Evaluate(kBindings), IsOkAndHolds(test.value));
  const std::string printed = expr.ToString();
  EXPECT_EQ(printed, test.printed.empty() ? test.text : test.printed);
  ASSERT_OK_AND_ASSIGN(const SymExpr again, SymExpr::Parse(printed));
  EXPECT_EQ(again.ToString(), printed);
  EXPECT_EQ(again, expr);
}

INSTANTIATE_TEST_SUITE_P(
    Forms, SymExprText,
    testing::Values(Case{"5", 5, ""}, Case{"-5", -5, ""}, Case{"s0", 7, ""}, Case{"s0 + 1", 8, ""},
                    Case{"s0 - 1", 6, ""}, Case{"2*s0", 14, ""}, Case{"s0*2", 14, "2*s0"},
                    Case{"-s0", -7, ""}, Case{"s1 - s0", -4, ""}, Case{"s1 - 2*s0", -11, ""},
                    Case{"s0//2", 3, ""}, Case{"-s0//2", -4, "(-s0)//2"}, Case{"s0 % 4", 3, ""},
                    Case{"(-s0) % 4", 1, ""}, Case{"2*s0//3", 4, "(2*s0)//3"},
                    Case{"2*(s0//3)", 4, "2*(s0//3)"}, Case{"s0**2", 49, ""},
                    Case{"2*(s0**2)", 98, ""}, Case{"max(s0, s1, 5)", 7, ""},
                    Case{"min(s0 + 1, 2*s1)", 6, ""}, Case{"(s0 + 1)*(s1 - 1)", 16, ""},
                    Case{"s0 - (s1 - 1)", 5, "s0 - (s1 - 1)"}, Case{"(s0 + 1)//(s1 % 2)", 8, ""},
                    Case{"s0 + (s1 + 1)", 11, "s0 + s1 + 1"},
                    Case{"-9223372036854775808 + s0", INT64_MIN + 7, ""},
                    Case{"s0 + -9223372036854775808", INT64_MIN + 7, ""}));

TEST(SymExpr, ErrorsNameWhatIsWrong) {
  ASSERT_OK_AND_ASSIGN(const SymExpr unbound, SymExpr::Parse("s0 + s9"));
  EXPECT_THAT(unbound.Evaluate(kBindings), IsError(absl::StatusCode::kNotFound, HasSubstr("s9")));
  ASSERT_OK_AND_ASSIGN(const SymExpr division, SymExpr::Parse("s0//(s1 - 3)"));
  EXPECT_THAT(division.Evaluate(kBindings),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("division by zero")));
  ASSERT_OK_AND_ASSIGN(const SymExpr large, SymExpr::Parse("9223372036854775807 + s0"));
  EXPECT_THAT(large.Evaluate(kBindings),
              IsError(absl::StatusCode::kOutOfRange, HasSubstr("64 bits")));
  ASSERT_OK_AND_ASSIGN(const SymExpr power, SymExpr::Parse("s0**100"));
  EXPECT_FALSE(power.Evaluate(kBindings).ok());
}

TEST(SymExpr, DividingTheLeastIntegerDoesNotTrap) {
  const SymExpr least = SymExpr::Const(INT64_MIN);
  const SymExpr minus_one = SymExpr::Const(-1);
  EXPECT_FALSE(SymExpr::Make(Op::kFloorDiv, {least, minus_one}).Evaluate({}).ok());
  EXPECT_THAT(SymExpr::Make(Op::kMod, {least, minus_one}).Evaluate({}), IsOkAndHolds(0));
}

TEST(SymExpr, RefusesWhatIsNoExpression) {
  for (const char* text : {"", "s0 +", "s0 s1", "(s0", "max()", "max(s0", "sin(s0)", "1.5", "*"}) {
    EXPECT_FALSE(SymExpr::Parse(text).ok()) << text;
  }
  EXPECT_THAT(SymExpr::Parse(std::string(100'000, '(')),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("too deeply")));
  EXPECT_THAT(SymExpr::Parse(std::string(100'000, '-') + "1"),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("too deeply")));
}

TEST(SymExpr, TheEmptyExpressionIsDistinct) {
  EXPECT_TRUE(SymExpr().empty());
  EXPECT_EQ(SymExpr(), SymExpr());
  EXPECT_FALSE(SymExpr() == SymExpr::Const(0));
  EXPECT_FALSE(SymExpr().Evaluate({}).ok());
}

}  // namespace
}  // namespace autosp
