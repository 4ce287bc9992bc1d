// Signs of values in padding, from the ops that make them.
#include "compiler/rules/value_signs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace autosp {
namespace {

using ::testing::Eq;

struct Known {
  Sign sign = Sign::kAny;
  bool is_same = false;
};

// Of `%r = OP`, of %x, of which nothing is known, and %p, which is positive, both padded, and of
// %w and its positive %e, which are not.
Known Of(const std::string& op, const std::string& type = "f32[8]") {
  const auto graph = ParseGraph(absl::StrCat(
      "graph \"g\" {\n  input %x \"x\" : f32[8]\n  input %m \"m\" : bool[8]\n",
      "  param %w \"w\" : f32[1]\n  %p = aten.exp.default(%x) : f32[8]\n",
      "  %e = aten.exp.default(%w) : f32[1]\n  %s = aten.expand.default(%e, [8]) : f32[8]\n",
      "  %r = ", op, " : ", type, "\n  return %r\n}\n"));
  EXPECT_TRUE(graph.ok()) << graph.status();
  if (!graph.ok()) return {};
  const auto is_padded = [&](ValueId id) { return graph->type(id).sizes[0] == SymInt(8); };
  const PaddingSigns signs = SignsInPadding(*graph, is_padded);
  for (size_t i = 0; i < graph->values.size(); ++i) {
    if (graph->values[i].name == "r") return {.sign = signs.signs[i], .is_same = signs.is_same[i]};
  }
  ADD_FAILURE() << "no %r";
  return {};
}
Sign SignOf(const std::string& op, const std::string& type = "f32[8]") { return Of(op, type).sign; }

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

TEST(ValueSigns, OfWhatIsTheSameForAllTokensNoSignIsTaken) {
  EXPECT_THAT(SignOf("aten.mul.Tensor(%p, %e)"), Eq(Sign::kAny));
  EXPECT_THAT(SignOf("aten.mul.Tensor(%p, %s)"), Eq(Sign::kAny));
  EXPECT_THAT(SignOf("aten.add.Tensor(%p, %e)"), Eq(Sign::kAny));
  EXPECT_THAT(SignOf("aten.mul.Tensor(%p, %p)"), Eq(Sign::kPositive));
}

TEST(ValueSigns, WhatIsMadeOfTheSameIsTheSame) {
  EXPECT_TRUE(Of("aten.expand.default(%w, [8])").is_same);
  EXPECT_TRUE(Of("aten.add.Tensor(%s, 1)").is_same);
  EXPECT_TRUE(Of("aten.mul.Tensor(%s, %w)").is_same);
  EXPECT_FALSE(Of("aten.mul.Tensor(%s, %x)").is_same);
  EXPECT_FALSE(Of("aten.full.default([8], 1)").is_same);
  EXPECT_FALSE(Of("aten.cumsum.default(%s, 0)").is_same);
  // A sign says more.
  EXPECT_THAT(SignOf("aten.exp.default(%s)"), Eq(Sign::kPositive));
  EXPECT_FALSE(Of("aten.exp.default(%s)").is_same);
}

}  // namespace
}  // namespace autosp
