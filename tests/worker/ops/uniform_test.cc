#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/worker/ops/own_op_runner.h"
#include "worker/ops/dropout_device.h"
#include "worker/ops/philox.h"
#include "worker/ops/shard_indices.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kTokens = 13;

// A tensor [tokens, 5] of which `mesh` and `axes` make shards.
OwnOpRunner Runner(const Mesh& mesh, const AxisList& axes, Layout layout, int64_t node = 7) {
  OwnOpRunner runner("autosp.uniform", 1);
  runner.program.mesh = mesh;
  runner.program.factors = {{"seq", kTokens, layout}};
  ProgramValue result;
  result.name = "u";
  result.dims = {{{.factor = {0}, .axes = axes}}, {{.factor = {}, .size = 5}}};
  runner.instruction.results = {runner.program.AddValue(result)};
  runner.Attribute("seed", SymInt(0x1234567890)).Attribute("node", SymInt(node));
  return runner;
}

absl::StatusOr<at::Tensor> Draw(OwnOpRunner runner, float step = 3) {
  auto results = runner.Tensor(at::zeros({})).Tensor(at::scalar_tensor(step)).Run();
  if (!results.ok()) return results.status();
  return (*results)[0];
}

at::Tensor Whole(int64_t node = 7, float step = 3) {
  return *Draw(Runner({}, {}, Layout::kContiguous, node), step);
}

float Reference(int64_t i) {
  const PhiloxWords words = Philox({static_cast<uint32_t>(i / 4), 0, 3, 0x12}, {0x34567890, 7});
  return (static_cast<float>(words[i % 4] >> 9) + 0.5F) / (1 << 23);
}

TEST(UniformTest, MatchesAReference) {
  const at::Tensor drawn = Whole();
  ASSERT_EQ(drawn.sizes(), (at::IntArrayRef{kTokens, 5}));
  for (int64_t i = 0; i < drawn.numel(); ++i) {
    EXPECT_EQ(drawn.data_ptr<float>()[i], Reference(i)) << i;
  }
}

TEST(UniformTest, EverySplitDrawsTheSameAndNothingInPadding) {
  const at::Tensor whole = Whole();
  for (const Layout layout : {Layout::kContiguous, Layout::kZigzag}) {
    const Mesh mesh{.ring = 2, .ulysses = 2};
    for (int64_t rank = 0; rank < mesh.world_size(); ++rank) {
      OwnOpRunner runner = Runner(mesh, {Axis::kRing, Axis::kUlysses}, layout);
      runner.place = CoordinateOf(mesh, rank);
      const auto tokens =
          GlobalIndices(runner.program, runner.program.value(runner.instruction.results[0]).dims[0],
                        {runner.place, 0});
      const auto drawn = Draw(std::move(runner));
      ASSERT_TRUE(drawn.ok()) << drawn.status();
      for (size_t i = 0; i < tokens.size(); ++i) {
        const at::Tensor row = drawn->select(0, static_cast<int64_t>(i));
        EXPECT_TRUE(tokens[i] < 0 ? row.eq(0).all().item<bool>() : row.equal(whole[tokens[i]]));
      }
    }
  }
}

TEST(UniformTest, IsUniformAndNeitherZeroNorOne) {
  OwnOpRunner runner("autosp.uniform", 1);
  ProgramValue value;
  value.name = "u";
  value.dims = {{{.factor = {}, .size = 1'000'003}}};
  runner.instruction.results = {runner.program.AddValue(value)};
  runner.Attribute("seed", SymInt(-5)).Attribute("node", SymInt(0));
  const auto drawn = Draw(std::move(runner), 1);
  ASSERT_TRUE(drawn.ok()) << drawn.status();
  const at::Tensor u = drawn->to(at::kDouble);
  EXPECT_NEAR(u.mean().item<double>(), 0.5, 5 * std::sqrt(1 / 12e6));
  EXPECT_NEAR(u.square().mean().item<double>(), 1.0 / 3, 5 * std::sqrt(4 / 45e6));
  EXPECT_GT(u.min().item<double>(), 0);
  EXPECT_LT(u.max().item<double>(), 1);
  // No neighbour says anything of the next.
  const at::Tensor both = (u.slice(0, 1) - 0.5) * (u.slice(0, 0, -1) - 0.5);
  EXPECT_NEAR(both.mean().item<double>(), 0, 5 / 12.0 / 1e3);
}

TEST(UniformTest, TheExtremeWordsAreNumbersBetween) {
  EXPECT_EQ(UniformOf(0), 0x1p-24F);
  EXPECT_EQ(UniformOf(UINT32_MAX), 1 - 0x1p-24F);
}

TEST(UniformTest, StepAndNodeChangeTheNumbers) {
  EXPECT_TRUE(Whole().equal(Whole()));
  EXPECT_FALSE(Whole().eq(Whole(8)).any().item<bool>());
  EXPECT_FALSE(Whole().eq(Whole(7, 4)).any().item<bool>());
}

// What runs on GPUs, by ATen's kernels.
TEST(UniformTest, DevicesDrawTheSame) {
  const at::Tensor drawn = at::empty({3, 7});
  RandomStream stream{.key = {0x34567890, 7}, .step = 3, .seed_high = 0x12};
  const at::Tensor rows = at::tensor({0, 14, -1}, at::kLong);
  const at::Tensor columns = at::tensor({0, 1, 2, 3, 4, -1, 6}, at::kLong);
  UniformOnDevice(drawn, rows, columns, stream);
  for (int64_t row = 0; row < 3; ++row) {
    for (int64_t column = 0; column < 7; ++column) {
      const bool is_padding = row == 2 || column == 5;
      EXPECT_EQ(drawn[row][column].item<float>(), is_padding ? 0 : Reference(14 * row + column));
    }
  }
}

TEST(UniformTest, RefusesANodeThatIsNone) {
  const auto drawn = Draw(Runner({}, {}, Layout::kContiguous, -1));
  EXPECT_THAT(std::string(drawn.status().message()), HasSubstr("node (-1) must be 0 to"));
}

}  // namespace
}  // namespace autosp
