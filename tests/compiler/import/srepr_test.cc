#include "compiler/import/srepr.h"

#include <cmath>
#include <string>

#include "common/status_macros.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

const SymBindings kBindings = {{"s0", 10}, {"s1", 3}};

// `{s}` stands for the symbol s0 as torch writes it.
std::string Srepr(std::string text) {
  const std::string symbol = "Symbol('s0', positive=True, integer=True)";
  for (size_t at = text.find("{s}"); at != std::string::npos; at = text.find("{s}")) {
    text.replace(at, 3, symbol);
  }
  return text;
}

struct Case {
  std::string srepr;
  std::string text;
  int64_t value;
};

class SreprForms : public testing::TestWithParam<Case> {};

TEST_P(SreprForms, BecomeExpressions) {
  ASSERT_OK_AND_ASSIGN(const SymExpr expr, ParseSrepr(Srepr(GetParam().srepr)));
  EXPECT_EQ(expr.ToString(), GetParam().text);
  EXPECT_THAT(expr.Evaluate(kBindings), IsOkAndHolds(GetParam().value));
}

INSTANTIATE_TEST_SUITE_P(
    Forms, SreprForms,
    testing::Values(
        Case{"Integer(-4)", "-4", -4}, Case{"{s}", "s0", 10}, Case{"Symbol('s1')", "s1", 3},
        Case{"Add({s}, Integer(1))", "s0 + 1", 11},
        Case{"Mul(Integer(64), {s}, Symbol('s1', integer=True))", "64*s0*s1", 1920},
        Case{"Pow({s}, Integer(2))", "s0**2", 100}, Case{"FloorDiv({s}, Integer(4))", "s0//4", 2},
        Case{"CleanDiv({s}, Integer(5))", "s0//5", 2},
        Case{"CeilDiv({s}, Integer(4))", "-((-s0)//4)", 3},
        Case{"floor(Mul(Rational(1, 4), {s}))", "s0//4", 2},
        Case{"ceiling(Mul(Rational(1, 4), {s}))", "-((-s0)//4)", 3},
        // Halves that make a whole only together.
        Case{"Add(Mul(Rational(1, 2), Pow({s}, Integer(2))), Mul(Rational(1, 2), {s}))",
             "(s0**2 + s0)//2", 55},
        Case{"Add(Mul(Rational(1, 2), {s}), Mul(Rational(1, 5), {s}))", "(5*s0 + 2*s0)//10", 7},
        Case{"Mul({s}, Pow(Integer(5), Integer(-1)))", "s0//5", 2},
        Case{"Mod({s}, Integer(4))", "s0 % 4", 2}, Case{"PythonMod({s}, Integer(4))", "s0 % 4", 2},
        Case{"ModularIndexing({s}, Integer(2), Integer(3))", "(s0//2) % 3", 2},
        Case{"Max(Integer(12), {s})", "max(12, s0)", 12},
        Case{"Min(Integer(12), {s})", "min(12, s0)", 10}, Case{"ToFloat({s})", "s0", 10},
        // As arange(S - 1, -1, -1.0) has them.
        Case{"CeilToInt(FloatTrueDiv(ToFloat({s}), Float('1.0', precision=53)))", "s0", 10},
        Case{"CeilToInt(FloatTrueDiv(Add(Mul(Integer(-1), ToFloat({s})), Float('-1.0')), "
             "Float('-2.0', precision=53)))",
             "-((-s0 - 1)//2)", 6},
        Case{"CeilToInt(IntTrueDiv({s}, Integer(4)))", "-((-s0)//4)", 3},
        Case{"FloorToInt(Mul(Float('0.75', precision=53), ToFloat({s})))", "(75*s0)//100", 7},
        Case{"TruncToInt({s})", "s0", 10}, Case{"Identity(Add({s}, Integer(-1)))", "s0 - 1", 9}));

TEST(SreprNumber, IsWhatPythonMakesOfIt) {
  const auto value = [](const std::string& srepr) -> absl::StatusOr<double> {
    ASSIGN_OR_RETURN(const NumberExpr number, ParseSreprNumber(Srepr(srepr)));
    return number.Evaluate(kBindings);
  };
  EXPECT_THAT(value("IntTrueDiv(Integer(1), {s})"), IsOkAndHolds(0.1));
  EXPECT_THAT(value("FloatTrueDiv(ToFloat(Add({s}, Integer(-1))), Float('2.0', precision=53))"),
              IsOkAndHolds(4.5));
  EXPECT_THAT(value("Mul(Float('0.01', precision=53), ToFloat({s}))"), IsOkAndHolds(0.1));
  EXPECT_THAT(value("Mul(Float('-.5', precision=53), ToFloat({s}))"), IsOkAndHolds(-5.0));
  EXPECT_THAT(value("FloatTrueDiv({s}, Mul(Integer(-4), Symbol('s1')))"),
              IsOkAndHolds(10.0 / -12.0));
  EXPECT_THAT(value("FloatPow(ToFloat({s}), Float('-0.5', precision=53))"),
              IsOkAndHolds(std::pow(10.0, -0.5)));
  EXPECT_THAT(value("OpaqueUnaryFn_sqrt(ToFloat(Mul(Integer(4), {s})))"),
              IsOkAndHolds(std::sqrt(40.0)));
  EXPECT_THAT(value("FloatPow(Float('0.90000000000000002'), ToFloat({s}))"),
              IsOkAndHolds(std::pow(0.9, 10.0)));
  EXPECT_THAT(value("Add(Mul(Integer(-1), FloatPow(ToFloat({s}), Float('0.5'))), Float('1.0'), "
                    "ToFloat(Symbol('s1')))"),
              IsOkAndHolds(4.0 - std::pow(10.0, 0.5)));
  EXPECT_THAT(value("FloatTrueDiv(Float('1.0e-3'), ToFloat(Min({s}, Integer(4))))"),
              IsOkAndHolds(1e-3 / 4));
  EXPECT_THAT(value("Mul(Rational(1, 4), ToFloat(FloorDiv({s}, Integer(3))))"), IsOkAndHolds(0.75));
}

TEST(SreprNumber, ThatIsNotFollowedIsRefusedByName) {
  const auto error = [](const std::string& srepr) {
    return std::string(ParseSreprNumber(Srepr(srepr)).status().message());
  };
  EXPECT_THAT(error("OpaqueUnaryFn_log({s})"),
              HasSubstr("function OpaqueUnaryFn_log is not known"));
  EXPECT_THAT(error("Pow({s})"), HasSubstr("Pow does not take 1 operands"));
  EXPECT_THAT(error("ToFloat({s}, {s})"), HasSubstr("ToFloat does not take 2 operands"));
  EXPECT_THAT(error("ToFloat({s}"), HasSubstr("expected ')'"));
  EXPECT_THAT(error("ToFloat({s}) {s}"), HasSubstr("end of the expression"));
  EXPECT_THAT(error("Float('many')"), HasSubstr("the number many"));
}

struct BadCase {
  std::string srepr;
  std::string message;
};

class BadSrepr : public testing::TestWithParam<BadCase> {};

TEST_P(BadSrepr, IsRefusedByName) {
  const absl::StatusOr<SymExpr> expr = ParseSrepr(Srepr(GetParam().srepr));
  ASSERT_FALSE(expr.ok());
  EXPECT_THAT(std::string(expr.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Forms, BadSrepr,
    testing::Values(BadCase{"FloatPow(ToFloat({s}), Float('0.5', precision=53))",
                            "function FloatPow is not known"},
                    BadCase{"Piecewise({s})", "function Piecewise is not known"},
                    BadCase{"Mod(Mul(Rational(1, 2), {s}), Integer(3))", "Mod of a fraction"},
                    BadCase{"Mod({s})", "Mod does not take 1 operands"},
                    BadCase{"Pow({s}, Integer(-2))", "negative power"},
                    BadCase{"Pow(Rational(1, 2), {s})", "power of a fraction"},
                    BadCase{"Add(Pow({s}, Integer(-1)), Pow(Symbol('s1'), Integer(-1)))",
                            "sum of fractions"},
                    BadCase{"Rational(1, 0)", "denominator must be positive"},
                    BadCase{"Integer(99999999999999999999)", "64 bits"},
                    BadCase{"Add()", "expected a name"}, BadCase{"Add({s}", "expected ')'"},
                    BadCase{"{s}{s}", "end of the expression"}, BadCase{"", "expected a name"}));

TEST(Srepr, NestingAndLengthAreLimited) {
  std::string deep;
  for (int i = 0; i < 400; ++i) deep += "Add(Integer(1), ";
  EXPECT_THAT(ParseSrepr(deep),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("nests too deeply")));
  EXPECT_THAT(ParseSreprNumber(deep),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("nests too deeply")));
  EXPECT_THAT(ParseSrepr(std::string(1 << 20, ' ')),
              IsError(absl::StatusCode::kResourceExhausted, HasSubstr("1048576 bytes")));
}

TEST(Srepr, FindsUnbackedSymbols) {
  EXPECT_EQ(FindUnbackedSymbol("Add(Symbol('s0'), Symbol('u12', integer=True))"), "u12");
  EXPECT_EQ(FindUnbackedSymbol("Symbol('zuf0')"), "zuf0");
  EXPECT_EQ(FindUnbackedSymbol(Srepr("Add({s}, Integer(1))")), "");
  EXPECT_EQ(FindUnbackedSymbol("Symbol('"), "");
  EXPECT_FALSE(IsUnbackedSymbol("us0"));
}

}  // namespace
}  // namespace autosp
