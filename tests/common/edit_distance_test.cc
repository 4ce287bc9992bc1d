#include "common/edit_distance.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

TEST(EditDistanceTest, CountsEdits) {
  EXPECT_EQ(EditDistance("", ""), 0);
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("seq_len", "seq_len"), 0);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
  EXPECT_EQ(EditDistance("steps", "stesp"), 1);  // A swap is one slip.
  EXPECT_EQ(EditDistance("abc", "abcd"), EditDistance("abcd", "abc"));
}

TEST(NearestNameTest, FindsASlip) {
  const std::vector<std::string> names = {"seq_len", "steps", "seed"};
  EXPECT_EQ(NearestName("seqlen", names), "seq_len");
  EXPECT_EQ(NearestName("Seq_Len", names), "seq_len");
  EXPECT_EQ(NearestName("sede", names), "seed");
}

TEST(NearestNameTest, SaysNothingWhenAllAreFar) {
  EXPECT_EQ(NearestName("optimizer", {"seq_len", "steps"}), std::nullopt);
  EXPECT_EQ(NearestName("xy", {"ab"}), std::nullopt);
  EXPECT_EQ(NearestName("steps", {}), std::nullopt);
}

TEST(NearestNameTest, TakesTheFirstOfEquals) {
  EXPECT_EQ(NearestName("bat", {"cat", "hat"}), "cat");
}

TEST(SuggestNameTest, SuggestsOrLists) {
  EXPECT_EQ(SuggestName("stpes", {"steps", "seed"}), "; did you mean \"steps\"?");
  EXPECT_EQ(SuggestName("zzz", {"steps", "seed"}), "; known are steps, seed");
  EXPECT_EQ(SuggestName("zzz", {}), "");
}

}  // namespace
}  // namespace autosp
