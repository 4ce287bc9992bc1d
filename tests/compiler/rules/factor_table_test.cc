// Factors: products of dimensions by provenance.
#include "compiler/rules/factor_table.h"

#include <gtest/gtest.h>

namespace autosp {
namespace {

using Sizes = std::vector<int64_t>;

Sizes SizesOf(const FactorTable& table, const FactorDim& dim) {
  Sizes sizes;
  for (FactorVar factor : table.Resolve(dim)) sizes.push_back(table.Size(factor));
  return sizes;
}

TEST(FactorTableTest, UnifyMergesEqualFactors) {
  FactorTable table;
  const FactorVar a = table.NewFactor(8, "seq", /*is_root=*/true);
  const FactorVar b = table.NewFactor(8);
  ASSERT_TRUE(table.Unify({b}, {a}).ok());
  EXPECT_EQ(table.Resolve(FactorDim{a}), table.Resolve(FactorDim{b}));
  EXPECT_TRUE(table.IsRoot(b));
  EXPECT_EQ(table.Name(b), "seq");
}

TEST(FactorTableTest, EqualSizesAloneAreNotOneFactor) {
  FactorTable table;
  const FactorVar a = table.NewFactor(8);
  const FactorVar b = table.NewFactor(8);
  EXPECT_NE(table.Resolve(FactorDim{a}), table.Resolve(FactorDim{b}));
}

TEST(FactorTableTest, UnifyRefinesTheLarger) {
  FactorTable table;
  const FactorVar hidden = table.NewFactor(64);
  const FactorVar heads = table.NewFactor(4);
  const FactorVar head_dim = table.NewFactor(16);
  ASSERT_TRUE(table.Unify({hidden}, {heads, head_dim}).ok());
  EXPECT_EQ(table.Resolve(FactorDim{hidden}), table.Resolve(FactorDim{heads, head_dim}));
}

TEST(FactorTableTest, UnifyRefusesOtherSizesAndCrossings) {
  FactorTable table;
  const FactorVar six = table.NewFactor(6);
  const FactorVar four = table.NewFactor(4);
  EXPECT_FALSE(table.Unify({six}, {four}).ok());
  const FactorVar other_four = table.NewFactor(4);
  const FactorVar other_six = table.NewFactor(6);
  EXPECT_FALSE(table.Unify({six, four}, {other_four, other_six}).ok());
}

// A batch of one beside nothing must not become a factor of the sequence.
TEST(FactorTableTest, ABatchOfOneVanishes) {
  FactorTable table;
  const FactorVar batch = table.NewFactor(1, "batch", true);
  const FactorVar seq = table.NewFactor(8, "seq", true);
  ASSERT_TRUE(table.Unify({batch, seq}, {seq}).ok());
  const FactorVar other = table.NewFactor(8);
  ASSERT_TRUE(table.Unify({other}, {batch, seq}).ok());
  EXPECT_EQ(table.Resolve(FactorDim{seq}), FactorDim{seq});
  EXPECT_EQ(table.Resolve(FactorDim{other}), FactorDim{seq});
  EXPECT_EQ(table.Resolve(FactorDim{batch}), FactorDim{batch});
}

TEST(FactorTableTest, RegroupCutsAndJoins) {
  FactorTable table;
  const FactorVar batch = table.NewFactor(2);
  const FactorVar seq = table.NewFactor(8);
  const FactorVar hidden = table.NewFactor(64);
  const auto cut = table.Regroup({{batch}, {seq}, {hidden}}, {16, 4, 16});
  ASSERT_TRUE(cut.has_value());
  EXPECT_EQ((*cut)[0], (FactorDim{batch, seq}));
  EXPECT_EQ(SizesOf(table, {hidden}), (Sizes{4, 16}));
  const auto joined = table.Regroup(*cut, {2, 8, 64});
  ASSERT_TRUE(joined.has_value());
  EXPECT_EQ(table.Resolve((*joined)[2]), table.Resolve(FactorDim{hidden}));
}

TEST(FactorTableTest, RegroupRefusesToCrossFactors) {
  FactorTable table;
  const FactorVar six = table.NewFactor(6);
  const FactorVar four = table.NewFactor(4);
  EXPECT_FALSE(table.Regroup({{six}, {four}}, {4, 6}).has_value());
}

TEST(FactorTableTest, RegroupKeepsABatchOfOneInItsPlace) {
  FactorTable table;
  const FactorVar batch = table.NewFactor(1, "batch", true);
  const FactorVar seq = table.NewFactor(8, "seq", true);
  const auto cut = table.Regroup({{batch}, {seq}}, {1, 2, 4});
  ASSERT_TRUE(cut.has_value());
  EXPECT_EQ((*cut)[0], FactorDim{batch});
}

TEST(FactorTableTest, DerivedSizesFollowTheRoot) {
  FactorTable table;
  const FactorVar seq = table.NewFactor(8, "seq", true);
  const FactorDim longer = table.NewDerived({seq}, 1);
  EXPECT_EQ(table.Size(longer), 9);
  EXPECT_TRUE(table.FollowsRoot(longer));
  EXPECT_EQ(table.NewDerived(longer, -1), FactorDim{seq});  // pad by one, drop one
  ASSERT_TRUE(table.Resize(seq, 20).ok());
  EXPECT_EQ(table.Size(longer), 21);
}

TEST(FactorTableTest, ALiteralThatMeetsADerivedSizeFollowsIt) {
  FactorTable table;
  const FactorVar seq = table.NewFactor(8, "seq", true);
  const FactorVar literal = table.NewFactor(9);
  ASSERT_TRUE(table.Unify({literal}, table.NewDerived({seq}, 1)).ok());
  ASSERT_TRUE(table.Resize(seq, 20).ok());
  EXPECT_EQ(table.Size(literal), 21);
}

TEST(FactorTableTest, ExpressionsNameFactors) {
  FactorTable table;
  const SymExpr s = SymExpr::Symbol("s0");
  const FactorVar seq = table.NewFactor(8, "seq", true);
  table.NameExpression(s, {seq});
  EXPECT_EQ(table.ForExpression(s, 8), FactorDim{seq});
  const SymExpr twice = SymExpr::Make(SymExpr::Op::kMul, {SymExpr::Const(2), s});
  const FactorDim doubled = table.ForExpression(twice, 16);
  EXPECT_EQ(table.ForExpression(twice, 16), doubled);
  table.Bind({{"s0", 20}});
  EXPECT_EQ(table.Size(doubled), 40);
}

// The number of blocks changes, their size does not.
TEST(FactorTableTest, ASequenceInBlocksKeepsItsBlocks) {
  FactorTable table;
  const FactorVar seq = table.NewFactor(8, "seq", true);
  ASSERT_TRUE(table.Regroup({{seq}}, {2, 4}).has_value());
  EXPECT_EQ(table.Resize(seq, 10).code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(table.Resize(seq, 12).ok());
  EXPECT_EQ(SizesOf(table, {seq}), (Sizes{3, 4}));
  EXPECT_TRUE(table.IsPartOfRoot(table.Resolve(FactorDim{seq})[1]));
}

}  // namespace
// Unless the part is an expression of the archive.
TEST(FactorTableTest, ASequenceInAsManyBlocksKeepsTheirNumber) {
  FactorTable table;
  const FactorVar seq = table.NewFactor(8, "seq", true);
  const auto parts = table.Regroup({{seq}}, {2, 4});
  ASSERT_TRUE(parts.has_value());
  table.SetExpression((*parts)[1][0], SymExpr::Symbol("s0"));
  EXPECT_EQ(table.BlockOf(seq), 2);
  ASSERT_TRUE(table.Resize(seq, 10).ok());
  EXPECT_EQ(SizesOf(table, {seq}), (Sizes{2, 5}));
}

// The blocks of a sequence without its first token follow it where the archive says how many.
TEST(FactorTableTest, BlocksOfACutSequenceFollow) {
  FactorTable table;
  const FactorVar seq = table.NewFactor(9, "seq", true);
  const auto parts = table.Regroup({table.NewDerived({seq}, -1)}, {2, 4});
  ASSERT_TRUE(parts.has_value());
  table.SetExpression((*parts)[0][0], SymExpr::Symbol("s0"));
  ASSERT_TRUE(table.Resize(seq, 13).ok());
  table.Bind({{"s0", 3}});
  EXPECT_EQ(table.Size((*parts)[0]), 3);
  EXPECT_EQ(table.Size((*parts)[1]), 4);
}

TEST(FactorTableTest, HalvesThatAreOneFollowTheWhole) {
  FactorTable table;
  const FactorVar root = table.NewFactor(8, "seq", /*is_root=*/true);
  const FactorDim front = table.NewFrontHalf({root});
  const FactorDim back = table.NewDerived({root}, -4);
  EXPECT_EQ(table.PartsOf(back, {root}), 0);
  ASSERT_TRUE(table.Unify(front, back).ok());
  EXPECT_EQ(table.PartsOf(front, {root}), 2);
  ASSERT_TRUE(table.Resize(root, 12).ok());
  EXPECT_EQ(table.Size(front), 6);
}

TEST(FactorTableTest, HalvesOfTwoDimensionsAreNone) {
  FactorTable table;
  const FactorVar root = table.NewFactor(8, "seq", /*is_root=*/true);
  const FactorVar other = table.NewFactor(8, "batch", /*is_root=*/true);
  const FactorDim front = table.NewFrontHalf({other});
  const FactorDim back = table.NewDerived({root}, -4);
  ASSERT_TRUE(table.Unify(front, back).ok());
  EXPECT_EQ(table.PartsOf(back, {root}), 0);
  ASSERT_TRUE(table.Resize(root, 12).ok());
  EXPECT_EQ(table.Size(back), 8);
}

TEST(FactorTableTest, EqualPartsFollowTheWhole) {
  FactorTable table;
  const FactorVar root = table.NewFactor(12, "seq", /*is_root=*/true);
  const FactorDim part = table.NewPart({root}, 3);
  EXPECT_EQ(table.PartsOf(part, {root}), 3);
  ASSERT_TRUE(table.Resize(root, 30).ok());
  EXPECT_EQ(table.Size(part), 10);
}

// Frequencies of a real signal: as many for an even length and the odd one behind it.
TEST(FactorTableTest, SpectraFollowTheirSignal) {
  FactorTable table;
  const FactorVar root = table.NewFactor(12, "seq", /*is_root=*/true);
  const FactorDim spectrum = table.NewSpectrum({root});
  const FactorDim other = table.NewSpectrum({root});
  EXPECT_EQ(table.Size(spectrum), 7);
  EXPECT_TRUE(table.FollowsRoot(spectrum));
  ASSERT_TRUE(table.Unify(spectrum, other).ok());
  EXPECT_EQ(table.SpectrumOf(other), FactorDim{root});
  EXPECT_EQ(table.SpectrumOf(table.NewPart({root}, 2)), std::nullopt);
  EXPECT_EQ(table.SpectrumOf({root}), std::nullopt);
  ASSERT_TRUE(table.Resize(root, 31).ok());
  EXPECT_EQ(table.Size(spectrum), 16);
}

// Two views of a batch beside each other, and two rows of numbers.
TEST(FactorTableTest, SumsFollowTheirParts) {
  FactorTable table;
  const FactorVar batch = table.NewFactor(4, "batch", /*is_root=*/true);
  const FactorDim sum = table.NewSum({{batch}, {batch}}, 2);
  EXPECT_EQ(table.Size(sum), 10);
  EXPECT_TRUE(table.FollowsRoot(sum));
  const FactorDim one_less = table.NewDerived(sum, -1);
  const FactorDim literal = {table.NewFactor(10)};
  EXPECT_TRUE(table.Unify(literal, sum).ok());
  ASSERT_TRUE(table.Resize(batch, 6).ok());
  EXPECT_EQ(table.Size(sum), 14);
  EXPECT_EQ(table.Size(literal), 14);
  EXPECT_EQ(table.Size(one_less), 13);
  EXPECT_EQ(table.CutFrom(one_less[0], batch), 0);
}

// Sums of sums, as models write that put windows beside each other again and again.
TEST(FactorTableTest, WhatManySumsShareIsSizedOnce) {
  FactorTable table;
  const FactorVar batch = table.NewFactor(4, "batch", /*is_root=*/true);
  FactorDim sum = {batch};
  constexpr int kSteps = 40;
  for (int i = 0; i < kSteps; ++i) sum = table.NewSum({sum, sum}, -4);
  EXPECT_EQ(table.Size(sum), 4);
  ASSERT_TRUE(table.Resize(batch, 5).ok());
  EXPECT_EQ(table.Size(sum), 4 + (int64_t{1} << kSteps));
}

}  // namespace autosp
