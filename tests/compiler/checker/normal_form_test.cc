// The normal form of meanings: what is the same function compares as equal, and only that.
#include <cmath>
#include <functional>

#include "compiler/checker/expression.h"
#include "compiler/checker/padding.h"
#include "gtest/gtest.h"

namespace autosp::checker {
namespace {

// Two ways to make a tensor of x [4, 6] and y [4, 6].
struct Pair {
  const char* name;
  bool equal;
  std::function<Tensor(ExpressionTable&, const Tensor& x, const Tensor& y)> left;
  std::function<Tensor(ExpressionTable&, const Tensor& x, const Tensor& y)> right;
};

using Table = ExpressionTable;

std::vector<Pair> SumsAndViews() {
  return {
      {"sums commute", true, [](Table& t, auto& x, auto& y) { return t.Add(x, y, 1); },
       [](Table& t, auto& x, auto& y) { return t.Add(y, x, 1); }},
      {"differences do not", false, [](Table& t, auto& x, auto& y) { return t.Add(x, y, -1); },
       [](Table& t, auto& x, auto& y) { return t.Add(y, x, -1); }},
      {"x - x is zero", true, [](Table& t, auto& x, auto&) { return t.Add(x, x, -1); },
       [](Table&, auto& x, auto&) { return Table::Zeros(x.shape); }},
      {"x + x is 2 x", true, [](Table& t, auto& x, auto&) { return t.Add(x, x, 1); },
       [](Table& t, auto& x, auto&) { return t.Scale(x, 2); }},
      {"x / 3 is not x / 3.0000001", false,
       [](Table& t, auto& x, auto&) { return t.Scale(x, 1 / 3.0); },
       [](Table& t, auto& x, auto&) { return t.Scale(x, 1 / 3.0000001); }},
      {"there and back", true,
       [](Table& t, auto& x, auto&) {
         return t.Reshape(t.Permute(t.Permute(t.Reshape(x, {4, 2, 3}), {2, 0, 1}), {1, 2, 0}),
                          {4, 6});
       },
       [](Table&, auto& x, auto&) { return x; }},
      {"a transpose is no reshape", false,
       [](Table& t, auto& x, auto&) {
         return t.Permute(x, {1, 0});
       },
       [](Table& t, auto& x, auto&) {
         return t.Reshape(x, {6, 4});
       }},
      {"views go into sums", true,
       [](Table& t, auto& x, auto& y) { return t.Reshape(t.Add(x, y, 1), {24}); },
       [](Table& t, auto& x, auto& y) { return t.Add(t.Reshape(x, {24}), t.Reshape(y, {24}), 1); }},
      {"sums over dimensions in any order", true,
       [](Table& t, auto& x, auto&) { return t.SumOver(t.SumOver(x, 1), 0); },
       [](Table& t, auto& x, auto&) { return t.SumOver(t.SumOver(x, 0), 0); }},
  };
}

std::vector<Pair> PartsAndOps() {
  return {
      {"a sum over halves", true,
       [](Table& t, auto& x, auto&) {
         return t.SumOver(t.SumOver(t.Reshape(x, {4, 2, 3}), 1), 1);
       },
       [](Table& t, auto& x, auto&) { return t.SumOver(x, 1); }},
      {"a sum over another dimension", false,
       [](Table& t, auto& x, auto&) {
         return t.SumOver(t.Reshape(x, {4, 6, 1}), 1);
       },
       [](Table& t, auto& x, auto&) {
         return t.SumOver(t.Reshape(x, {6, 4, 1}), 0);
       }},
      {"a sum of copies counts them", true,
       [](Table& t, auto& x, auto&) {
         return t.SumOver(t.Expand(x, {5, 4, 6}), 0);
       },
       [](Table& t, auto& x, auto&) { return t.Scale(x, 5); }},
      {"a slice of a slice", true,
       [](Table& t, auto& x, auto&) { return t.Slice(t.Slice(x, 1, 1, 4, 1), 1, 2, 2, 1); },
       [](Table& t, auto& x, auto&) { return t.Slice(x, 1, 3, 2, 1); }},
      {"another slice", false, [](Table& t, auto& x, auto&) { return t.Slice(x, 1, 2, 2, 1); },
       [](Table& t, auto& x, auto&) { return t.Slice(x, 1, 3, 2, 1); }},
      {"parts put in their places", false,
       [](Table& t, auto& x, auto&) { return t.Embed(t.Slice(x, 1, 0, 3, 1), 1, 0, 1, 6); },
       [](Table& t, auto& x, auto&) { return t.Embed(t.Slice(x, 1, 0, 3, 1), 1, 3, 1, 6); }},
      {"what a view cannot say is still itself", true,
       [](Table& t, auto& x, auto&) {
         return t.Reshape(t.Reshape(t.Permute(x, {1, 0}), {8, 3}), {6, 4});
       },
       [](Table& t, auto& x, auto&) {
         return t.Reshape(t.Reshape(t.Permute(x, {1, 0}), {8, 3}), {6, 4});
       }},
      {"an op of the same operands", true,
       [](Table& t, auto& x, auto&) { return t.Node("exp", {t.Intern(x)}, x.shape); },
       [](Table& t, auto& x, auto& y) {
         return t.Node("exp", {t.Intern(t.Add(t.Add(x, y, 1), y, -1))}, x.shape);
       }},
      {"an op of another shape", false,
       [](Table& t, auto& x, auto&) {
         return t.Node("softmax 1", {t.Intern(x)}, {4, 6});
       },
       [](Table& t, auto& x, auto&) {
         return t.Reshape(t.Node("softmax 1", {t.Intern(t.Reshape(x, {6, 4}))}, {6, 4}), {4, 6});
       }},
  };
}

std::vector<Pair> ZerosAroundParts() {
  return {
      {"zeros around what repeats", true,
       [](Table& t, auto& x, auto&) {
         const Tensor heads = t.Reshape(t.Expand(t.Reshape(x, {4, 1, 6}), {4, 3, 6}), {12, 6});
         return t.Embed(t.Scale(heads, 2), 1, 1, 1, 8);
       },
       [](Table& t, auto& x, auto&) {
         const Tensor padded = t.Reshape(t.Embed(t.Scale(x, 2), 1, 1, 1, 8), {4, 1, 8});
         return t.Reshape(t.Expand(padded, {4, 3, 8}), {12, 8});
       }},
      {"zeros behind repetitions are not repetitions of zeros", false,
       [](Table& t, auto& x, auto&) {
         return t.Embed(t.Reshape(t.Expand(t.Reshape(x, {4, 1, 6}), {4, 2, 6}), {8, 6}), 0, 0, 1,
                        10);
       },
       [](Table& t, auto& x, auto&) {
         const Tensor padded = t.Reshape(t.Embed(x, 0, 0, 1, 5), {5, 1, 6});
         return t.Reshape(t.Expand(padded, {5, 2, 6}), {10, 6});
       }},
      {"what is cut out of zeros around a part is cut out of the part", true,
       [](Table& t, auto& x, auto& y) {
         const Tensor padded = t.Embed(t.Add(t.Scale(x, 2), y, 1), 1, 1, 1, 9);
         return t.Slice(t.Slice(padded, 1, 0, 8, 1), 1, 2, 3, 2);
       },
       [](Table& t, auto& x, auto& y) { return t.Slice(t.Add(t.Scale(x, 2), y, 1), 1, 1, 3, 2); }},
      {"also where it repeats", true,
       [](Table& t, auto& x, auto&) {
         const Tensor bias = t.Expand(t.Slice(x, 0, 1, 1, 1), {4, 6});
         return t.Slice(t.Embed(bias, 1, 0, 1, 8), 1, 0, 6, 1);
       },
       [](Table& t, auto& x, auto&) {
         return t.Expand(t.Slice(x, 0, 1, 1, 1), {4, 6});
       }},
      {"zeros behind a part are zero", true,
       [](Table& t, auto& x, auto&) { return t.Slice(t.Embed(x, 1, 0, 1, 9), 1, 6, 3, 1); },
       [](Table&, auto&, auto&) {
         return Table::Zeros({4, 3});
       }},
      {"a place later, it is another", false,
       [](Table& t, auto& x, auto&) { return t.Slice(t.Embed(x, 1, 1, 1, 8), 1, 0, 6, 1); },
       [](Table&, auto& x, auto&) { return x; }},
      {"of another dimension it is not cut", false,
       [](Table& t, auto& x, auto&) { return t.Slice(t.Embed(x, 1, 0, 1, 9), 0, 0, 3, 1); },
       [](Table& t, auto& x, auto&) { return t.Embed(t.Slice(x, 0, 1, 3, 1), 1, 0, 1, 9); }},
  };
}

TEST(NormalForm, EqualFunctionsAreEqual) {
  std::vector<Pair> pairs = SumsAndViews();
  for (const std::vector<Pair>& more : {PartsAndOps(), ZerosAroundParts()}) {
    pairs.insert(pairs.end(), more.begin(), more.end());
  }
  for (const Pair& pair : pairs) {
    ExpressionTable table;
    const Tensor x = table.Node("x", {}, {4, 6});
    const Tensor y = table.Node("y", {}, {4, 6});
    const Tensor left = pair.left(table, x, y);
    const Tensor right = pair.right(table, x, y);
    EXPECT_EQ(left == right, pair.equal) << pair.name;
    EXPECT_EQ(table.Intern(left) == table.Intern(right), pair.equal) << pair.name;
  }
}

struct PadCase {
  const char* op;
  std::vector<PadState> operands;
  const char* expected;
};

// A mask that is the same for all positions hides all of a row of padding only where it hides all
// of valid rows; another may hide rows of padding alone.
TEST(Padding, SoftmaxOfHiddenKeysIsThatOfValidPositions) {
  const PadState hidden = PadState::Constant(-INFINITY);
  const auto filled = [&](const PadState& mask) {
    return PadOfElementwise("aten.masked_fill.Scalar", {PadState::Finite(), mask, hidden});
  };
  EXPECT_TRUE(IsSoftmaxAlike("aten._softmax.default", filled(PadState::Valid())));
  EXPECT_FALSE(IsSoftmaxAlike("aten._softmax.default", filled(PadState::Finite())));
  EXPECT_FALSE(IsSoftmaxAlike("aten.sum.dim_IntList", filled(PadState::Valid())));
  const PadState biased =
      PadOfElementwise("aten.add.Tensor", {filled(PadState::Valid()), PadState::Finite()});
  EXPECT_TRUE(IsSoftmaxAlike("aten._softmax.default", biased));
  const auto twice = [&](const PadState& mask) {
    return PadOfElementwise("aten.masked_fill.Scalar", {biased, mask, hidden});
  };
  EXPECT_TRUE(IsSoftmaxAlike("aten._softmax.default", twice(PadState::Valid())));
  EXPECT_FALSE(IsSoftmaxAlike("aten._softmax.default", twice(PadState::Finite())));
}

// Scores that are hidden alike for all positions, and what losses make of their logarithms.
TEST(Padding, WhatIsHiddenAlikeIsANumberWhereValidPositionsHaveOne) {
  using Kind = PadState::Kind;
  const PadState alike = {Kind::kAlike, 0};
  const PadState like = {Kind::kLike, 0};
  const PadState finite = PadState::Finite();
  EXPECT_TRUE(IsSoftmaxAlike("aten._log_softmax.default", alike));
  EXPECT_FALSE(IsSoftmaxAlike("aten._log_softmax.default", {Kind::kBelow, 0}));
  const auto made = [](const char* op, const PadState& a, const PadState& b) {
    return PadOfElementwise(op, {a, b});
  };
  EXPECT_EQ(made("aten.add.Tensor", alike, alike), alike);
  EXPECT_EQ(made("aten.sub.Tensor", alike, alike), like);
  EXPECT_EQ(made("aten.sub.Tensor", finite, alike), like);
  EXPECT_EQ(made("aten.sub.Tensor", {Kind::kBelow, 0}, alike), PadState::Unknown());
  EXPECT_EQ(made("aten.mul.Tensor", finite, like), like);
  // It may be zero where valid positions have another number.
  EXPECT_EQ(made("aten.div.Tensor", finite, like), PadState::Unknown());
  const auto chosen = [&](const PadState& condition) {
    return PadOfElementwise("aten.where.self", {condition, like, PadState::Zero()});
  };
  EXPECT_EQ(chosen(PadState::Valid()), like);
  EXPECT_EQ(chosen(PadState::Constant(1)), PadState::Unknown());
  EXPECT_EQ(chosen(finite), PadState::Unknown());
  EXPECT_TRUE(chosen(PadState::Constant(0)).is_zero());
}

TEST(Padding, FollowsWhatIsKnown) {
  const PadState positive = {PadState::Kind::kPositive, 0};
  const PadState finite = PadState::Finite();
  const PadState unknown = PadState::Unknown();
  const PadCase cases[] = {
      {"aten.mul.Tensor", {PadState::Zero(), finite}, "0"},
      {"aten.mul.Tensor", {PadState::Zero(), unknown}, "anything"},
      {"aten.div.Tensor", {PadState::Zero(), PadState::Constant(2)}, "0"},
      {"aten.div.Tensor", {PadState::Zero(), finite}, "anything"},
      {"aten.ne.Scalar", {PadState::Constant(-100), PadState::Constant(-100)}, "0"},
      {"aten.exp.default", {finite}, "a positive number"},
      {"aten.exp.default", {unknown}, "anything"},
      {"aten.rsqrt.default", {positive}, "a positive number"},
      {"aten.rsqrt.default", {finite}, "anything"},
      {"aten.silu.default", {PadState::Zero()}, "0"},
      {"aten.where.ScalarOther", {PadState::Zero(), unknown, PadState::Zero()}, "0"},
      {"aten.where.ScalarOther", {PadState::Constant(1), unknown, PadState::Zero()}, "anything"},
      {"aten.add.Tensor", {finite, unknown}, "anything"},
      {"aten.masked_fill.Scalar",
       {finite, PadState::Valid(), PadState::Constant(-INFINITY)},
       "a number or minus infinity"},
      {"aten.sqrt.default", {PadState::Constant(4)}, "a positive number"},
      {"aten.log1p.default", {positive}, "a positive number"},
      {"aten.log1p.default", {finite}, "anything"},
      {"aten.sinh.default", {PadState::Zero()}, "0"},
      {"aten.atanh.default", {PadState::Zero()}, "0"},
      {"aten.atanh.default", {finite}, "anything"},
      {"aten.logit.default", {PadState::Zero()}, "anything"},
      {"aten.nan_to_num.default", {unknown}, "a number"},
      {"aten.pow.Scalar", {PadState::Constant(2), finite}, "a positive number"},
      {"aten.pow.Scalar", {PadState::Zero(), finite}, "anything"},
      {"aten.pow.Scalar", {PadState::Constant(2), unknown}, "anything"},
      {"aten.fmod.Scalar", {finite, PadState::Constant(2)}, "a number"},
      {"aten.fmod.Tensor", {finite, finite}, "anything"},
      {"aten.remainder.Scalar", {finite, PadState::Zero()}, "anything"},
      {"aten.addcdiv.default", {finite, finite, positive}, "a number"},
      {"aten.addcdiv.default", {finite, finite, finite}, "anything"},
      {"aten.xlogy.Tensor", {PadState::Zero(), finite}, "0"},
      {"aten.xlogy.Tensor", {finite, finite}, "anything"},
  };
  for (const PadCase& each : cases) {
    EXPECT_EQ(ToText(PadOfElementwise(each.op, each.operands)), each.expected) << each.op;
  }
}

// How many ranks there are is not known, so of a number other than zero only the sign is.
TEST(Padding, ASumOverRanksKeepsZeroAndSigns) {
  EXPECT_EQ(ToText(PadOfAllRanks(PadState::Zero())), "0");
  EXPECT_EQ(ToText(PadOfAllRanks(PadState::Constant(1))), "a positive number");
  EXPECT_EQ(ToText(PadOfAllRanks(PadState::Constant(-1))), "a number");
  EXPECT_EQ(ToText(PadOfAllRanks(PadState::Unknown())), "anything");
}

TEST(Padding, DerivativesKeepZeroWhereTheyAreNumbers) {
  const PadState zero = PadState::Zero();
  const PadState finite = PadState::Finite();
  EXPECT_TRUE(PadOfDerivative("aten.silu.default", {finite}, zero).is_zero());
  EXPECT_FALSE(PadOfDerivative("aten.silu.default", {finite}, finite).is_zero());
  EXPECT_FALSE(PadOfDerivative("aten.silu.default", {PadState::Unknown()}, zero).is_zero());
  EXPECT_FALSE(PadOfDerivative("aten.div.Tensor", {finite, finite}, zero).is_zero());
  EXPECT_TRUE(PadOfDerivative("aten.div.Tensor", {finite, PadState::Constant(1)}, zero).is_zero());
  const PadState positive = {PadState::Kind::kPositive, 0};
  EXPECT_TRUE(PadOfDerivative("aten.hypot.default", {finite, positive}, zero).is_zero());
  EXPECT_FALSE(PadOfDerivative("aten.hypot.default", {finite, finite}, zero).is_zero());
  EXPECT_TRUE(PadOfDerivative("aten.asin.default", {zero}, zero).is_zero());
  EXPECT_FALSE(PadOfDerivative("aten.acosh.default", {zero}, zero).is_zero());
  EXPECT_TRUE(PadOfDerivative("aten.pow.Scalar", {PadState::Constant(2), finite}, zero).is_zero());
  EXPECT_FALSE(PadOfDerivative("aten.pow.Scalar", {finite, finite}, zero).is_zero());
  EXPECT_TRUE(PadOfDerivative("aten.log1p.default", {zero}, zero).is_zero());
  EXPECT_FALSE(PadOfDerivative("aten.log1p.default", {finite}, zero).is_zero());
}

}  // namespace
}  // namespace autosp::checker
