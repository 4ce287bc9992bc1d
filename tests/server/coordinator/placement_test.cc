#include "server/coordinator/placement.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

using testing::ElementsAre;

NodeDevices Node(const std::string& name, std::vector<int64_t> free,
                 const std::string& kind = "cpu") {
  return {.node = NodeId(name), .device_kind = kind, .num_devices = 8, .free = std::move(free)};
}

// "a:0" per rank.
std::vector<std::string> Places(int64_t world_size, const std::vector<NodeDevices>& nodes) {
  auto ranks = PlaceRanks(world_size, "cpu", nodes);
  if (!ranks) return {"none"};
  std::vector<std::string> places;
  for (const RankPart& rank : *ranks) {
    places.push_back(absl::StrCat(rank.node, ":", rank.device_index));
  }
  return places;
}

TEST(PlaceRanks, PrefersTheFullestNodeThatTakesAll) {
  EXPECT_THAT(Places(2, {Node("a", {0, 1, 2, 3}), Node("b", {4, 6}), Node("c", {1})}),
              ElementsAre("b:4", "b:6"));
}

TEST(PlaceRanks, SpreadsOverAsFewNodesAsPossible) {
  EXPECT_THAT(Places(5, {Node("a", {0}), Node("b", {0, 1, 2}), Node("c", {0, 1})}),
              ElementsAre("b:0", "b:1", "b:2", "c:0", "c:1"));
}

TEST(PlaceRanks, NumbersRanksWithinTheirNode) {
  const auto ranks = PlaceRanks(3, "cpu", {Node("a", {0, 1}), Node("b", {5})});
  ASSERT_TRUE(ranks.has_value());
  EXPECT_EQ((*ranks)[1].local_rank, 1);
  EXPECT_EQ((*ranks)[2].local_rank, 0);
}

TEST(PlaceRanks, TakesEqualNodesByName) {
  EXPECT_THAT(Places(1, {Node("a", {3}), Node("b", {2})}), ElementsAre("a:3"));
}

TEST(PlaceRanks, GivesNothingWhenTooFewAreFree) {
  EXPECT_THAT(Places(3, {Node("a", {0}), Node("b", {0})}), ElementsAre("none"));
  EXPECT_THAT(Places(1, {}), ElementsAre("none"));
}

TEST(PlaceRanks, DoesNotMixKinds) {
  EXPECT_THAT(Places(2, {Node("a", {0}), Node("b", {0, 1}, "cuda")}), ElementsAre("none"));
}

}  // namespace
}  // namespace autosp
