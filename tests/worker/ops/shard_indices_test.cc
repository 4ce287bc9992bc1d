#include "worker/ops/shard_indices.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/worker/ops/own_op_runner.h"

namespace autosp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Program ShardedProgram() {
  Program program;
  program.mesh = {.accum = 2, .dp = 2, .ring = 1, .ulysses = 2};
  program.factors = {{"batch", 8, Layout::kContiguous}, {"seq", 5, Layout::kContiguous}};
  return program;
}

// One zigzag factor.
Program ZigzagProgram(int64_t size, int64_t ring, int64_t ulysses) {
  Program program;
  program.mesh.ring = ring;
  program.mesh.ulysses = ulysses;
  program.factors = {{"zig", size, Layout::kZigzag}};
  return program;
}

TEST(ShardIndicesTest, ContiguousShardsPadAtTheEnd) {
  const Program program = ShardedProgram();
  const DimFactor seq = {.factor = {1}, .axes = {Axis::kUlysses}};
  EXPECT_THAT(GlobalIndices(program, seq, {{.ulysses = 0}}), ElementsAre(0, 1, 2));
  EXPECT_THAT(GlobalIndices(program, seq, {{.ulysses = 1}}), ElementsAre(3, 4, 5));
  DimFactor padded = seq;
  padded.padded = true;
  EXPECT_THAT(GlobalIndices(program, padded, {{.ulysses = 1}}), ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(ShardIndicesTest, ZigzagPairsEarlyAndLateBlocks) {
  const Program program = ZigzagProgram(8, 2, 1);
  const DimFactor zig = {.factor = {0}, .axes = {Axis::kRing}};
  EXPECT_THAT(GlobalIndices(program, zig, {{.ring = 0}}), ElementsAre(0, 1, 6, 7));
  EXPECT_THAT(GlobalIndices(program, zig, {{.ring = 1}}), ElementsAre(2, 3, 4, 5));
}

TEST(ShardIndicesTest, UlyssesCutsTheBlocksOfARingMember) {
  // 17 elements on 2 x 3 shards: L = 4, four blocks of 6, the last 7 indices are padding.
  const Program program = ZigzagProgram(17, 2, 3);
  const DimFactor both = {.factor = {0}, .axes = {Axis::kRing, Axis::kUlysses}};
  const auto at = [&](int64_t ring, int64_t ulysses) {
    return GlobalIndices(program, both, {{.ring = ring, .ulysses = ulysses}});
  };
  EXPECT_THAT(at(0, 0), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(at(0, 1), ElementsAre(4, 5, 18, 19));
  EXPECT_THAT(at(0, 2), ElementsAre(20, 21, 22, 23));
  EXPECT_THAT(at(1, 1), ElementsAre(10, 11, 12, 13));
  // Over ring alone, the same blocks whole.
  const DimFactor ring = {.factor = {0}, .axes = {Axis::kRing}};
  EXPECT_THAT(GlobalIndices(program, ring, {{.ring = 1, .ulysses = 2}}),
              ElementsAre(6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17));
  // Whole with its padding: the shards in group order.
  DimFactor padded = both;
  padded.padded = true;
  EXPECT_THAT(GlobalIndices(program, padded, {}),
              ElementsAre(0, 1, 2, 3, 4, 5, 18, 19, 20, 21, 22, 23, 6, 7, 8, 9, 10, 11, 12, 13, 14,
                          15, 16, 17));
}

TEST(ShardIndicesTest, EveryElementIsOnOneShard) {
  for (const int64_t size : {1, 8, 13, 64, 101}) {
    for (const auto& [ring, ulysses] : {std::pair{2, 1}, {2, 4}, {4, 3}, {8, 2}, {1, 4}}) {
      const Program program = ZigzagProgram(size, ring, ulysses);
      const DimFactor zig = {.factor = {0}, .axes = {Axis::kRing, Axis::kUlysses}};
      std::set<int64_t> seen;
      for (int64_t rank = 0; rank < program.mesh.world_size(); ++rank) {
        const auto indices = GlobalIndices(program, zig, {CoordinateOf(program.mesh, rank)});
        EXPECT_EQ(static_cast<int64_t>(indices.size()), program.LocalSize(zig));
        seen.insert(indices.begin(), indices.end());
      }
      EXPECT_EQ(static_cast<int64_t>(seen.size()), program.PaddedSize(zig));
      EXPECT_EQ(*seen.rbegin(), program.PaddedSize(zig) - 1);
    }
  }
}

TEST(ShardIndicesTest, ZigzagIsContiguousWithoutARing) {
  const Program alone = ZigzagProgram(5, 1, 2);
  const DimFactor split = {.factor = {0}, .axes = {Axis::kUlysses}};
  EXPECT_THAT(GlobalIndices(alone, split, {{.ulysses = 1}}), ElementsAre(3, 4, 5));
  const Program beside = ZigzagProgram(5, 2, 2);
  EXPECT_THAT(GlobalIndices(beside, split, {{.ring = 1, .ulysses = 1}}), ElementsAre(4, 5, 6, 7));
}

TEST(ShardIndicesTest, AccumulationIsTheOuterAxis) {
  const Program program = ShardedProgram();
  const DimFactor batch = {.factor = {0}, .axes = {Axis::kAccum, Axis::kDp}};
  EXPECT_THAT(GlobalIndices(program, batch, {{.dp = 1}, 0}), ElementsAre(2, 3));
  EXPECT_THAT(GlobalIndices(program, batch, {{.dp = 1}, 1}), ElementsAre(6, 7));
}

TEST(ShardIndicesTest, ADimIsTheProductOfItsFactors) {
  const Program program = ShardedProgram();
  const ProgramDim dim = {{.factor = {}, .size = 2}, {.factor = {1}, .axes = {Axis::kUlysses}}};
  EXPECT_EQ(GlobalSize(program, dim), 10);
  EXPECT_THAT(GlobalIndices(program, dim, {{.ulysses = 1}}), ElementsAre(3, 4, -1, 8, 9, -1));
}

TEST(ShardIndicesTest, TheOpGivesThemAsATensor) {
  OwnOpRunner runner("autosp.shard_indices", 1);
  runner.Attribute("factor", std::string("seq")).Attribute("axes", std::string("ulysses"));
  runner.program = ShardedProgram();
  runner.place.ulysses = 1;
  const auto results = runner.Run();
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_TRUE((*results)[0].equal(at::tensor({3, 4, 5}, at::kLong)));
}

TEST(ShardIndicesTest, RefusesAnUnknownFactor) {
  OwnOpRunner runner("autosp.shard_indices", 1);
  runner.Attribute("factor", std::string("tokens")).Attribute("axes", std::string("ulysses"));
  EXPECT_THAT(std::string(runner.Run().status().message()),
              HasSubstr("factor 'tokens' is not one of the program's factors"));
}

}  // namespace
}  // namespace autosp
