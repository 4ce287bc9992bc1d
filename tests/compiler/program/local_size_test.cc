#include <gtest/gtest.h>

#include "compiler/program/program.h"

namespace autosp {
namespace {

struct Case {
  int64_t size;
  Layout layout;
  int64_t ring;
  int64_t ulysses;
  AxisList axes;
  int64_t local;   // of a shard
  int64_t padded;  // of all shards
};

TEST(LocalSizeTest, ShardsOfAFactor) {
  const AxisList ring = {Axis::kRing};
  const AxisList ulysses = {Axis::kUlysses};
  const AxisList both = {Axis::kRing, Axis::kUlysses};
  const Case cases[] = {
      {17, Layout::kContiguous, 2, 3, both, 3, 18},
      {17, Layout::kContiguous, 2, 3, ring, 9, 18},
      {17, Layout::kContiguous, 2, 3, {}, 17, 17},
      // The least even L with 2 * 3 * L >= 17 is 4, whatever splits the factor.
      {17, Layout::kZigzag, 2, 3, both, 4, 24},
      {17, Layout::kZigzag, 2, 3, ring, 12, 24},
      {17, Layout::kZigzag, 2, 3, ulysses, 8, 24},
      {17, Layout::kZigzag, 2, 3, {}, 17, 17},
      {16, Layout::kZigzag, 4, 1, ring, 4, 16},
      {17, Layout::kZigzag, 4, 1, ring, 6, 24},
      // Without a ring nothing has to be even.
      {17, Layout::kZigzag, 1, 3, ulysses, 6, 18},
      {17, Layout::kZigzag, 1, 3, both, 6, 18},
  };
  for (const Case& c : cases) {
    Program program;
    program.mesh.ring = c.ring;
    program.mesh.ulysses = c.ulysses;
    program.factors = {{"seq", c.size, c.layout}};
    DimFactor factor = {.factor = {0}, .axes = c.axes};
    EXPECT_EQ(program.LocalSize(factor), c.local) << AxisListName(c.axes);
    EXPECT_EQ(program.PaddedSize(factor), c.padded) << AxisListName(c.axes);
    factor.padded = true;
    EXPECT_EQ(program.LocalSize(factor), c.padded) << AxisListName(c.axes);
  }
}

TEST(LocalSizeTest, AnonymousFactorsHaveNoLayout) {
  Program program;
  program.mesh.ring = 2;
  EXPECT_EQ(program.LocalSize(DimFactor{.size = 5, .axes = {Axis::kRing}}), 3);
  EXPECT_EQ(program.LocalSize(DimFactor{.size = 5}), 5);
}

}  // namespace
}  // namespace autosp
