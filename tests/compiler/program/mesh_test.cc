#include "compiler/program/mesh.h"

#include <gtest/gtest.h>

namespace autosp {
namespace {

using Ranks = std::vector<int64_t>;
constexpr Mesh kMesh{.accum = 3, .dp = 2, .ring = 1, .ulysses = 4};

TEST(MeshTest, UlyssesPeersAreNeighbours) {
  EXPECT_EQ(GroupOf(kMesh, {Axis::kUlysses}, 1), (Ranks{0, 1, 2, 3}));
  EXPECT_EQ(GroupOf(kMesh, {Axis::kUlysses}, 6), (Ranks{4, 5, 6, 7}));
  EXPECT_EQ(GroupOf(kMesh, {Axis::kDp}, 6), (Ranks{2, 6}));
  EXPECT_EQ(GroupOf(kMesh, {Axis::kDp, Axis::kUlysses}, 6), (Ranks{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(MeshTest, EachRankIsAtItsPlaceInItsGroup) {
  for (const AxisList& axes :
       {AxisList{Axis::kDp}, AxisList{Axis::kUlysses}, AxisList{Axis::kDp, Axis::kUlysses}}) {
    for (int64_t rank = 0; rank < kMesh.world_size(); ++rank) {
      const Ranks group = GroupOf(kMesh, axes, rank);
      EXPECT_EQ(group[CoordinateOf(kMesh, rank).index(axes, kMesh)], rank);
    }
  }
}

TEST(MeshTest, GroupsAreInTheOrderOfTheirAxes) {
  constexpr Mesh mesh{.accum = 2, .dp = 2, .ring = 3, .ulysses = 2};
  EXPECT_EQ(GroupOf(mesh, {Axis::kRing}, 9), (Ranks{7, 9, 11}));
  EXPECT_EQ(GroupOf(mesh, {Axis::kDp, Axis::kRing}, 3), (Ranks{1, 3, 5, 7, 9, 11}));
  EXPECT_EQ(GroupOf(mesh, {Axis::kRing, Axis::kUlysses}, 8), (Ranks{6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(GroupOf(mesh, {}, 4), (Ranks{4}));
}

TEST(MeshTest, AccumulationIsNoDevice) {
  EXPECT_EQ(kMesh.world_size(), 8);
  EXPECT_EQ(kMesh.size(AxisList{Axis::kAccum, Axis::kDp}), 6);
}

TEST(MeshTest, NamesRoundTrip) {
  for (Axis axis : kAllAxes) EXPECT_EQ(AxisFromName(AxisName(axis)), axis);
  EXPECT_FALSE(AxisFromName("sp").has_value());
  EXPECT_EQ(AxisListName({Axis::kDp, Axis::kUlysses}), "dp+ulysses");
}

}  // namespace
}  // namespace autosp
