#include "compiler/lowering/segment_cuts.h"

#include "gtest/gtest.h"

namespace autosp {
namespace {

// A chain of layers: each takes the last one's output of `width` and makes `inner` on the way.
struct Chain {
  std::vector<KeptRange> ranges;
  std::vector<int64_t> remade_bytes;

  void AddLayer(int64_t width, int64_t inner, bool last) {
    const size_t step = remade_bytes.size();
    ranges.push_back({.made = step, .last_read = step + 1, .bytes = inner});
    remade_bytes.push_back(inner);
    ranges.push_back({.made = step + 1, .last_read = last ? step + 1 : step + 2, .bytes = width});
    remade_bytes.push_back(width);
  }
  std::vector<size_t> Cut(double kept_weight = 1) const {
    return CutSegments(remade_bytes.size(), ranges, remade_bytes, kept_weight);
  }
};

Chain Layers(int count, int64_t width, int64_t inner) {
  Chain chain;
  for (int i = 0; i < count; ++i) chain.AddLayer(width, inner, i + 1 == count);
  return chain;
}

TEST(CutSegmentsTest, CutsWideLayersApart) {
  // Sixteen layers that make 100 and hand on 10: cuts after k of them keep 10 each.
  const std::vector<size_t> cuts = Layers(16, 10, 100).Cut();
  for (size_t cut : cuts) EXPECT_EQ(cut % 2, 0U) << "not between layers";
  // 5 segments of 3 or 4 layers: 40 + 4 x 110 is more than 70 + 2 x 110, less is 150 + 110.
  EXPECT_EQ(cuts.size(), 15U);
}

TEST(CutSegmentsTest, GathersNarrowLayers) {
  // Handing on costs as much as is made: the square root of their number.
  const std::vector<size_t> cuts = Layers(64, 10, 10).Cut();
  EXPECT_GT(cuts.size(), 4U);
  EXPECT_LT(cuts.size(), 20U);
}

TEST(CutSegmentsTest, CutsEveryLayerApartWhereKeepingCostsLittle) {
  const Chain layers = Layers(64, 10, 10);
  EXPECT_EQ(layers.Cut(0.01).size(), 63U);
  EXPECT_GT(layers.Cut(0.1).size(), layers.Cut().size());
}

// The narrow place between layers stands before a step whose value the backward does not want, as
// queries are in the layout of tokens: a cut behind that step would keep them.
TEST(CutSegmentsTest, CutsBeforeWhatNobodyWants) {
  Chain chain;
  constexpr int kLayers = 16;
  for (size_t i = 0; i < kLayers; ++i) {
    const size_t step = chain.remade_bytes.size();
    chain.ranges.push_back({.made = step, .last_read = step + 1, .bytes = 100});
    chain.remade_bytes.push_back(0);
    chain.ranges.push_back({.made = step + 1, .last_read = step + 2, .bytes = 100});
    chain.remade_bytes.push_back(100);
    chain.ranges.push_back({.made = step + 2, .last_read = step + 3, .bytes = 10});
    chain.remade_bytes.push_back(10);
  }
  chain.ranges.back().last_read = chain.remade_bytes.size() - 1;
  const std::vector<size_t> cuts = chain.Cut();
  EXPECT_EQ(cuts.size(), kLayers - 1);
  for (size_t cut : cuts) EXPECT_EQ(cut % 3, 0U);
}

TEST(CutSegmentsTest, LeavesWholeWhatCutsDoNotShrink) {
  EXPECT_TRUE(CutSegments(0, {}, {}).empty());
  EXPECT_TRUE(Layers(1, 10, 100).Cut().empty());
  // All is read at the end.
  std::vector<KeptRange> ranges;
  for (size_t i = 0; i < 8; ++i) ranges.push_back({.made = i, .last_read = 8, .bytes = 5});
  EXPECT_TRUE(CutSegments(9, ranges, std::vector<int64_t>(9, 5)).empty());
}

TEST(CutSegmentsTest, CountsWhatManyCutsShareOnce) {
  // A table that every layer reads is kept by the first cut, and costs the others nothing.
  Chain chain = Layers(16, 10, 100);
  chain.ranges.push_back({.made = 0, .last_read = 31, .bytes = 60});
  EXPECT_EQ(chain.Cut(), Layers(16, 10, 100).Cut());
}

}  // namespace
}  // namespace autosp
