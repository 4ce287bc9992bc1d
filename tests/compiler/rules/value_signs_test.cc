// Signs of values, from the ops that make them.
#include "compiler/rules/value_signs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace autosp {
namespace {

using ::testing::Eq;

// The sign of `%r = OP`, of %x, of which nothing is known, and %p, which is positive.
Sign SignOf(const std::string& op, const std::string& type = "f32[8]") {
  const auto graph = ParseGraph(absl::StrCat(
      "graph \"g\" {\n  input %x \"x\" : f32[8]\n  input %m \"m\" : bool[8]\n",
      "  %p = aten.exp.default(%x) : f32[8]\n  %r = ", op, " : ", type, "\n  return %r\n}\n"));
  EXPECT_TRUE(graph.ok()) << graph.status();
  if (!graph.ok()) return Sign::kAny;
  for (size_t i = 0; i < graph->values.size(); ++i) {
    if (graph->values[i].name == "r") return ValueSigns(*graph)[i];
  }
  ADD_FAILURE() << "no %r";
  return Sign::kAny;
}

TEST(ValueSigns, AddingANumberMakesASquarePositive) {
  EXPECT_THAT(SignOf("aten.square.default(%x)"), Eq(Sign::kNonNegative));
  EXPECT_THAT(SignOf("aten.add.Tensor(%p, 1)"), Eq(Sign::kPositive));
  EXPECT_THAT(SignOf("aten.add.Tensor(%x, 1)"), Eq(Sign::kAny));
  EXPECT_THAT(SignOf("aten.add.Tensor(%p, 1, -2)"), Eq(Sign::kAny));
}

TEST(ValueSigns, ASquareIsNotBelowZero) {
  EXPECT_THAT(SignOf("aten.pow.Tensor_Scalar(%x, 2)"), Eq(Sign::kNonNegative));
  EXPECT_THAT(SignOf("aten.pow.Tensor_Scalar(%x, 3)"), Eq(Sign::kAny));
  EXPECT_THAT(SignOf("aten.mul.Tensor(%x, %x)"), Eq(Sign::kNonNegative));
}

TEST(ValueSigns, BoundsBelowButNotAbove) {
  EXPECT_THAT(SignOf("aten.clamp_min.default(%x, 1e-6)"), Eq(Sign::kPositive));
  EXPECT_THAT(SignOf("aten.clamp.default(%x, 1, none)"), Eq(Sign::kPositive));
  EXPECT_THAT(SignOf("aten.clamp.default(%p, 1, -1)"), Eq(Sign::kAny));
  EXPECT_THAT(SignOf("aten.clamp.default(%x, -1, 1)"), Eq(Sign::kAny));
}

TEST(ValueSigns, OfCasts) {
  EXPECT_THAT(SignOf("aten.to.dtype(%p, bf16)", "bf16[8]"), Eq(Sign::kPositive));
  EXPECT_THAT(SignOf("aten.to.dtype(%p, i64)", "i64[8]"), Eq(Sign::kNonNegative));
  EXPECT_THAT(SignOf("aten.to.dtype(%m, f32)"), Eq(Sign::kNonNegative));
}

TEST(ValueSigns, SoftplusIsPositiveWhereItIsALogarithm) {
  EXPECT_THAT(SignOf("aten.softplus.default(%x)"), Eq(Sign::kPositive));
  EXPECT_THAT(SignOf("aten.softplus.default(%x, -1)"), Eq(Sign::kAny));
  EXPECT_THAT(SignOf("aten.softplus.default(%x, 1, -50)"), Eq(Sign::kAny));
}

}  // namespace
}  // namespace autosp
