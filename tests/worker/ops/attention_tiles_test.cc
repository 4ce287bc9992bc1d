#include "worker/ops/attention_tiles.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace autosp {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Indices = std::vector<int64_t>;
using Tile = AttentionTile;

Indices Range(int64_t begin, int64_t end) {
  Indices indices;
  for (int64_t i = begin; i < end; ++i) indices.push_back(i);
  return indices;
}

// Two blocks of `block` tokens, as a zigzag shard has.
Indices Zigzag(int64_t member, int64_t num_members, int64_t block) {
  Indices indices = Range(member * block, (member + 1) * block);
  const int64_t late = 2 * num_members - 1 - member;
  for (const int64_t i : Range(late * block, (late + 1) * block)) indices.push_back(i);
  return indices;
}

std::vector<Tile> Plan(const Indices& q, const Indices& k, int64_t size, AttentionRule rule) {
  return PlanTiles(RunsOf(q, size), RunsOf(k, size), rule);
}

// Every pair that may attend is in one tile, and no tile claims another.
std::string Fault(const Indices& q, const Indices& k, int64_t size, const AttentionRule& rule) {
  const auto valid = [size](int64_t index) { return index < size ? index : -1; };
  std::vector<int> seen(q.size() * k.size());
  for (const Tile& tile : Plan(q, k, size, rule)) {
    if (tile.kind == TileKind::kCausal && tile.q_size != tile.k_size) return "not square";
    if (tile.kind == TileKind::kBand && tile.q_size > rule.band_rows) return "band of many rows";
    if (tile.kind == TileKind::kBand && tile.q_size > tile.k_size) return "more queries than keys";
    for (int64_t i = 0; i < tile.q_size; ++i) {
      int64_t num_keys = 0;
      for (int64_t j = 0; j < tile.k_size; ++j) {
        const auto row = static_cast<size_t>(tile.q_begin + i);
        const auto key = static_cast<size_t>(tile.k_begin + j);
        if (row >= q.size() || key >= k.size()) return "outside";
        const bool allowed = rule.Allows(valid(q[row]), valid(k[key]));
        const bool computed =
            tile.kind == TileKind::kFull || (tile.kind == TileKind::kCausal && j <= i) ||
            (tile.kind == TileKind::kBand && j >= i - tile.before && j <= i + tile.after) ||
            (tile.kind == TileKind::kMasked && allowed);
        num_keys += computed ? 1 : 0;
        if (computed && !allowed) return "pair that may not attend";
        if (computed && seen[row * k.size() + key]++ > 0) return "pair computed twice";
      }
      if (tile.kind == TileKind::kBand && num_keys == 0) return "query of a band without a key";
    }
  }
  for (size_t i = 0; i < q.size(); ++i) {
    for (size_t j = 0; j < k.size(); ++j) {
      const bool missing = seen[i * k.size() + j] == 0 && rule.Allows(valid(q[i]), valid(k[j]));
      if (missing) return "pair left out";
    }
  }
  return "";
}

TEST(RunsOfTest, ConsecutiveIndicesWithoutPadding) {
  EXPECT_THAT(RunsOf({4, 5, 6, 10, 11}, 11), ElementsAre(IndexRun{0, 4, 3}, IndexRun{3, 10, 1}));
  EXPECT_THAT(RunsOf({-1, 7, -1, 8}, 20), ElementsAre(IndexRun{1, 7, 1}, IndexRun{3, 8, 1}));
  EXPECT_THAT(RunsOf({20, 21}, 20), IsEmpty());
}

TEST(PlanTilesTest, ZigzagRingIsOneCallForEachHop) {
  const AttentionRule causal = {.causal = true};
  const Indices second = Zigzag(1, 4, 100);
  EXPECT_THAT(Plan(second, second, 800, causal),
              ElementsAre(Tile{TileKind::kCausal, 0, 200, 0, 200}));
  // The tokens of an earlier member: their early block for all, their late block for nobody.
  EXPECT_THAT(Plan(second, Zigzag(0, 4, 100), 800, causal),
              ElementsAre(Tile{TileKind::kFull, 0, 200, 0, 100}));
  EXPECT_THAT(Plan(second, Zigzag(3, 4, 100), 800, causal),
              ElementsAre(Tile{TileKind::kFull, 100, 100, 0, 200}));
  // Without an order everybody sees everything.
  EXPECT_THAT(Plan(second, Zigzag(3, 4, 100), 800, {}),
              ElementsAre(Tile{TileKind::kFull, 0, 200, 0, 200}));
}

TEST(PlanTilesTest, PaddingTakesNoPart) {
  const AttentionRule causal = {.causal = true};
  const Indices first = Zigzag(0, 2, 100);
  EXPECT_THAT(Plan(first, first, 350, causal),
              ElementsAre(Tile{TileKind::kCausal, 0, 150, 0, 150}));
  EXPECT_THAT(Plan(Range(0, 100), Range(100, 200), 120, {}),
              ElementsAre(Tile{TileKind::kFull, 0, 100, 0, 20}));
  EXPECT_THAT(Plan(Range(0, 100), Range(200, 300), 150, {}), IsEmpty());
}

TEST(PlanTilesTest, LaterTokensAreLeftOut) {
  const AttentionRule causal = {.causal = true};
  EXPECT_THAT(Plan(Range(0, 100), Range(100, 200), 200, causal), IsEmpty());
  EXPECT_THAT(Plan(Range(100, 200), Range(0, 100), 200, causal),
              ElementsAre(Tile{TileKind::kFull, 0, 100, 0, 100}));
  // Keys that begin before the queries, and end within them.
  EXPECT_THAT(
      Plan(Range(100, 200), Range(50, 150), 200, causal),
      ElementsAre(Tile{TileKind::kFull, 0, 100, 0, 50}, Tile{TileKind::kCausal, 0, 50, 50, 50},
                  Tile{TileKind::kFull, 50, 50, 50, 50}));
}

TEST(PlanTilesTest, AWindowThatCutsNothingIsNone) {
  const AttentionRule rule = {.causal = true, .window = 200};
  EXPECT_THAT(Plan(Range(0, 200), Range(0, 200), 200, rule),
              ElementsAre(Tile{TileKind::kCausal, 0, 200, 0, 200}));
}

TEST(PlanTilesTest, WindowHasMasksOnlyInCorners) {
  const AttentionRule rule = {.causal = true, .window = 1024};
  const std::vector<Tile> tiles = Plan(Range(4096, 4352), Range(0, 8192), 8192, rule);
  EXPECT_THAT(tiles, ElementsAre(Tile{TileKind::kMasked, 0, 256, 3073, 255},
                                 Tile{TileKind::kFull, 0, 256, 3328, 768},
                                 Tile{TileKind::kCausal, 0, 256, 4096, 256}));
}

TEST(PlanTilesTest, AKernelOfBandsNeedsNoMask) {
  const AttentionRule rule = {.causal = true, .window = 1024, .band_rows = 4096};
  EXPECT_THAT(Plan(Range(0, 8192), Range(0, 8192), 8192, rule),
              ElementsAre(Tile{TileKind::kBand, 0, 4096, 0, 4096, 1023, 0},
                          Tile{TileKind::kBand, 4096, 4096, 3073, 5119, 0, 1023}));
}

TEST(CutFewTokensTest, CutsTheLongSideOfTilesOfFewTokens) {
  const std::vector<Tile> kept = {{TileKind::kFull, 0, 64, 0, 9000},
                                  {TileKind::kBand, 0, 10, 0, 9000, 8999, 0},
                                  {TileKind::kCausal, 5, 63, 5, 63}};
  EXPECT_EQ(CutFewTokens(kept, 64, 4096), kept);
  const Tile rows = {TileKind::kFull, 100, 5000, 7, 63};
  const Tile keys = {TileKind::kFull, 3, 1, 50, 4097};
  EXPECT_THAT(
      CutFewTokens({rows, keys}, 64, 4096),
      ElementsAre(Tile{TileKind::kFull, 100, 4096, 7, 63}, Tile{TileKind::kFull, 4196, 904, 7, 63},
                  Tile{TileKind::kFull, 3, 1, 50, 4096}, Tile{TileKind::kFull, 3, 1, 4146, 1}));
}

TEST(PlanTilesTest, CostOfAWindowIsLengthTimesWindow) {
  for (const int64_t window : {64, 256, 1000, 4096}) {
    const int64_t rows = std::clamp<int64_t>(window / 4, 64, 512);
    const auto pairs = [&](int64_t size) {
      return NumPairs(Plan(Range(0, size), Range(0, size), size, {true, window}));
    };
    EXPECT_LE(pairs(16384), 16384 * (window + rows)) << window;
    // Twice the tokens is about twice the work.
    EXPECT_LE(pairs(65536), pairs(32768) * 2.1 + 65536) << window;
  }
}

TEST(PlanTilesTest, CostOfDocumentsIsTheSumOfSquares) {
  for (const int64_t length : {48, 100, 1000}) {
    Indices docs;
    for (int64_t i = 0; i < 20000; ++i) docs.push_back(i / length);
    const auto pairs = [&](bool causal) {
      return NumPairs(Plan(Range(0, 20000), Range(0, 20000), 20000, {causal, 0, docs, docs}));
    };
    EXPECT_EQ(pairs(false), 20000 / length * length * length + (20000 % length) * (20000 % length));
    EXPECT_LE(pairs(true), 20000 * (length + 1) / 2);
  }
}

TEST(PlanTilesTest, ShortDocumentsShareTiles) {
  Indices docs;
  for (int64_t i = 0; i < 4096; ++i) docs.push_back(i / 8);
  const std::vector<Tile> tiles = Plan(Range(0, 4096), Range(0, 4096), 4096, {true, 0, docs, docs});
  EXPECT_EQ(tiles.size(), 64U);
  EXPECT_EQ(NumPairs(tiles), 4096 * 64);
}

TEST(PlanTilesTest, KeysOfNoDocumentAreLeftOut) {
  const Indices docs = {0, 0, -1, -1, -1};
  EXPECT_THAT(Plan(Range(0, 5), Range(0, 5), 5, {.k_docs = docs}),
              ElementsAre(Tile{TileKind::kFull, 0, 5, 0, 2}));
  EXPECT_THAT(Plan(Range(0, 5), Range(2, 5), 5, {.k_docs = docs}), IsEmpty());
  // The same tokens, but the documents of queries are others than those of keys.
  const Indices others = {1, 1, 1, 1, 1};
  EXPECT_THAT(Plan(Range(0, 5), Range(0, 5), 5, {.causal = true, .q_docs = others}), IsEmpty());
}

TEST(CutTilesTest, PartsBeforeTheDiagonalAreFull) {
  const std::vector<Tile> tiles = {{TileKind::kCausal, 5, 25, 100, 25},
                                   {TileKind::kFull, 0, 10, 0, 12},
                                   {TileKind::kMasked, 0, 30, 0, 30}};
  EXPECT_THAT(
      CutTiles(tiles, 10, 10),
      ElementsAre(Tile{TileKind::kCausal, 5, 10, 100, 10}, Tile{TileKind::kFull, 15, 10, 100, 10},
                  Tile{TileKind::kCausal, 15, 10, 110, 10}, Tile{TileKind::kFull, 25, 5, 100, 10},
                  Tile{TileKind::kFull, 25, 5, 110, 10}, Tile{TileKind::kCausal, 25, 5, 120, 5},
                  Tile{TileKind::kFull, 0, 10, 0, 10}, Tile{TileKind::kFull, 0, 10, 10, 2},
                  Tile{TileKind::kMasked, 0, 30, 0, 30}));
  EXPECT_EQ(NumPairs(CutTiles(tiles, 7, 9)), NumPairs(tiles));
  EXPECT_EQ(CutTiles(tiles, 30, 30), tiles);
  EXPECT_THAT(CutTiles({{TileKind::kCausal, 0, 12, 0, 12}}, 4, 8),
              ElementsAre(Tile{TileKind::kCausal, 0, 4, 0, 4}, Tile{TileKind::kFull, 4, 4, 0, 4},
                          Tile{TileKind::kCausal, 4, 4, 4, 4}, Tile{TileKind::kFull, 8, 4, 0, 8},
                          Tile{TileKind::kCausal, 8, 4, 8, 4}));
}

enum class Packing { kNone, kOne, kLong, kShort, kShuffled, kPadded };

Indices DocumentsOf(Packing packing, int64_t size, std::mt19937& random) {
  Indices docs;
  int64_t doc = 0;
  for (int64_t i = 0; i < size && packing != Packing::kNone; ++i) {
    if (packing == Packing::kLong && random() % 60 == 0) ++doc;
    if (packing == Packing::kShort && random() % 5 == 0) ++doc;
    if (packing == Packing::kShuffled) doc = static_cast<int64_t>(random() % 3) - 1;
    if (packing == Packing::kPadded && random() % 40 == 0) doc = static_cast<int64_t>(i) * -1;
    if (packing == Packing::kPadded && random() % 40 == 0) doc = static_cast<int64_t>(i) / 50;
    docs.push_back(doc);
  }
  return docs;
}

TEST(PlanTilesTest, CoversExactlyWhatMayAttend) {
  std::mt19937 random(7);
  constexpr int64_t kSize = 365;  // of 384 with padding
  for (const Packing packing : {Packing::kNone, Packing::kOne, Packing::kLong, Packing::kShort,
                                Packing::kShuffled, Packing::kPadded}) {
    const Indices docs = DocumentsOf(packing, kSize, random);
    for (const int64_t num_members : {1, 2, 4}) {
      for (const int64_t window : {0, 1, 30, 90, 150, 300, 1000}) {
        for (int64_t r = 0; r < num_members * num_members * 4; ++r) {
          const bool causal = r % 2 == 0;
          const bool is_zigzag = r / 2 % 2 == 0;
          const int64_t length = 384 / num_members;
          const auto shard = [&](int64_t member) {
            return is_zigzag ? Zigzag(member, num_members, length / 2)
                             : Range(member * length, (member + 1) * length);
          };
          for (const int64_t band_rows : {0, 50, 1000}) {
            EXPECT_EQ(Fault(shard(r / 4 % num_members), shard(r / 4 / num_members), kSize,
                            {causal, window, docs, docs, band_rows}),
                      "")
                << "packing " << static_cast<int>(packing) << " members " << num_members
                << " window " << window << " case " << r << " bands " << band_rows;
          }
        }
      }
    }
  }
}

TEST(PlanTilesTest, InterleavedDocumentsArePlannedByBlocks) {
  Indices docs;
  for (int64_t i = 0; i < 4096; ++i) docs.push_back(i % 2);
  const Indices all = Range(0, 4096);
  EXPECT_EQ(Plan(all, all, 4096, {false, 0, docs, docs}).size(), 256U);
  EXPECT_EQ(Plan(all, all, 4096, {true, 0, docs, docs}).size(), 136U);
  EXPECT_EQ(Fault(Range(0, 700), Range(0, 700), 700, {true, 90, docs, docs}), "");
}

}  // namespace
}  // namespace autosp
