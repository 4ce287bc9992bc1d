#include "common/check.h"

#include "gtest/gtest.h"

namespace autosp {
namespace {

TEST(CheckTest, PassesAndEvaluatesOnce) {
  int calls = 0;
  AUTOSP_CHECK(++calls == 1);
  EXPECT_EQ(calls, 1);
}

TEST(CheckDeathTest, NamesPlaceConditionAndParts) {
  const int rank = 4;
  EXPECT_DEATH(AUTOSP_CHECK(rank < 4, "rank ", rank, " of 4"),
               "check_test.cc:[0-9]+: check failed: rank < 4: rank 4 of 4");
}

TEST(CheckDeathTest, NeedsNoParts) {
  EXPECT_DEATH(AUTOSP_CHECK(1 + 1 == 3), "check failed: 1 \\+ 1 == 3\n");
}

}  // namespace
}  // namespace autosp
