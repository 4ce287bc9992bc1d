#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/worker/ops/own_op_runner.h"
#include "worker/ops/philox.h"
#include "worker/ops/shard_indices.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

// The test vectors that its authors publish with Random123.
TEST(PhiloxTest, MatchesThePublishedVectors) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (PhiloxWords{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (PhiloxWords{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxWords{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

struct DropoutCase {
  double p = 0.3;
  int64_t seed = 0x1234567890;
  int64_t node = 7;
  float step = 3;
};

// A tensor [batch, seq, heads, 6] of which `mesh` and `dims` make shards.
struct Sharding {
  std::string name;
  Mesh mesh;
  AxisList batch = {};
  AxisList seq = {};
  AxisList heads = {};
  Layout layout = Layout::kContiguous;
};

constexpr int64_t kBatch = 4;
constexpr int64_t kTokens = 13;
constexpr int64_t kHeads = 4;

OwnOpRunner Runner(const DropoutCase& c, const Sharding& sharding) {
  OwnOpRunner runner("autosp.dropout", 1);
  runner.program.mesh = sharding.mesh;
  runner.program.factors = {{"batch", kBatch}, {"seq", kTokens, sharding.layout}, {"n", kHeads}};
  ProgramValue result;
  result.name = "y";
  result.dims = {{{.factor = {0}, .axes = sharding.batch}},
                 {{.factor = {1}, .axes = sharding.seq}},
                 {{.factor = {2}, .axes = sharding.heads}},
                 {{.factor = {}, .size = 6}}};
  runner.instruction.results = {runner.program.AddValue(result)};
  runner.Attribute("p", c.p).Attribute("seed", SymInt(c.seed)).Attribute("node", SymInt(c.node));
  return runner;
}

// The elements of `whole` that a shard has; where there is padding, any.
at::Tensor Shard(const OwnOpRunner& runner, const ShardPlace& place, const at::Tensor& whole) {
  at::Tensor local = whole;
  const ProgramValue& value = runner.program.value(runner.instruction.results[0]);
  for (int64_t dim = 0; dim < whole.dim(); ++dim) {
    const at::Tensor index =
        at::tensor(GlobalIndices(runner.program, value.dims[dim], place), at::kLong);
    local = local.index_select(dim, index.clamp_min(0));
  }
  return local;
}

at::Tensor Drop(const DropoutCase& c, const at::Tensor& x) {
  OwnOpRunner runner = Runner(c, {});
  const auto results = runner.Tensor(x).Tensor(at::scalar_tensor(c.step)).Run();
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() ? (*results)[0] : at::Tensor();
}

at::Tensor Ones() { return at::ones({kBatch, kTokens, kHeads, 6}); }

TEST(DropoutTest, MatchesAReference) {
  const DropoutCase c;
  const at::Tensor x = at::randn({kBatch, kTokens, kHeads, 6});
  at::Tensor expected = at::empty_like(x);
  for (int64_t i = 0; i < x.numel(); ++i) {
    const auto counter = static_cast<uint32_t>(i / 4);
    const PhiloxWords words = Philox({counter, 0, 3, 0x12}, {0x34567890, 7});
    const bool is_kept = words[i % 4] >= 0.3 * std::ldexp(1.0, 32);
    expected.data_ptr<float>()[i] = is_kept ? x.data_ptr<float>()[i] * (1 / 0.7F) : 0;
  }
  EXPECT_TRUE(at::allclose(Drop(c, x), expected, 1e-6, 0));
}

std::vector<Sharding> Shardings() {
  return {
      {.name = "tokens", .mesh = {.ulysses = 2}, .seq = {Axis::kUlysses}},
      {.name = "heads", .mesh = {.ulysses = 4}, .heads = {Axis::kUlysses}},
      {.name = "batch", .mesh = {.accum = 2, .dp = 2}, .batch = {Axis::kAccum, Axis::kDp}},
      {.name = "zigzag",
       .mesh = {.ring = 2, .ulysses = 2},
       .seq = {Axis::kRing, Axis::kUlysses},
       .layout = Layout::kZigzag},
      {.name = "two dims",
       .mesh = {.dp = 2, .ring = 1, .ulysses = 2},
       .batch = {Axis::kDp},
       .heads = {Axis::kUlysses}},
  };
}

TEST(DropoutTest, EverySplitDropsTheSame) {
  const DropoutCase c;
  const at::Tensor x = at::randn({kBatch, kTokens, kHeads, 6});
  const at::Tensor whole = Drop(c, x);
  for (const Sharding& sharding : Shardings()) {
    for (int64_t rank = 0; rank < sharding.mesh.world_size(); ++rank) {
      for (int64_t micro_step = 0; micro_step < sharding.mesh.accum; ++micro_step) {
        OwnOpRunner runner = Runner(c, sharding);
        runner.place = CoordinateOf(sharding.mesh, rank);
        runner.micro_step = micro_step;
        const ShardPlace place = {runner.place, micro_step};
        const at::Tensor local = Shard(runner, place, x);
        at::Tensor expected = Shard(runner, place, whole);
        const ProgramValue& value = runner.program.value(runner.instruction.results[0]);
        const auto tokens = GlobalIndices(runner.program, value.dims[1], place);
        for (size_t i = 0; i < tokens.size(); ++i) {  // padding becomes 0
          if (tokens[i] < 0) expected.select(1, static_cast<int64_t>(i)).zero_();
        }
        const auto results = runner.Tensor(local).Tensor(at::scalar_tensor(c.step)).Run();
        ASSERT_TRUE(results.ok()) << results.status();
        EXPECT_TRUE((*results)[0].equal(expected)) << sharding.name << " rank " << rank;
      }
    }
  }
}

TEST(DropoutTest, KeepsAsManyAsItShould) {
  for (const double p : {0.0, 0.1, 0.5, 0.9}) {
    OwnOpRunner runner("autosp.dropout", 1);
    ProgramValue value;
    value.name = "y";
    value.dims = {{{.factor = {}, .size = 1'000'003}}};
    runner.instruction.results = {runner.program.AddValue(value)};
    runner.Attribute("p", p).Attribute("seed", SymInt(-5)).Attribute("node", SymInt(0));
    const auto results = runner.Tensor(at::ones({1'000'003})).Tensor(at::scalar_tensor(1)).Run();
    ASSERT_TRUE(results.ok()) << results.status();
    const double kept = (*results)[0].ne(0).to(at::kDouble).mean().item<double>();
    EXPECT_NEAR(kept, 1 - p, 5 * std::sqrt(p * (1 - p) / 1e6)) << p;
    // The mean stays what it was.
    EXPECT_NEAR((*results)[0].to(at::kDouble).mean().item<double>(), 1, 0.02);
  }
  EXPECT_EQ(Drop({.p = 1}, Ones()).abs().max().item<float>(), 0);
}

TEST(DropoutTest, SeedStepAndNodeChangeTheMask) {
  const at::Tensor first = Drop({}, Ones()).ne(0);
  for (const DropoutCase& c : {DropoutCase{.seed = 0x1234567891}, DropoutCase{.seed = 0x2234567890},
                               DropoutCase{.node = 8}, DropoutCase{.step = 4}}) {
    // Independent masks agree on p^2 + (1 - p)^2 = 58 % of 1248 elements.
    const double same = Drop(c, Ones()).ne(0).eq(first).to(at::kDouble).mean().item<double>();
    EXPECT_NEAR(same, 0.58, 0.07);
  }
  EXPECT_TRUE(Drop({}, Ones()).ne(0).equal(first));
}

TEST(DropoutTest, HalfTypesHaveTheSameMask) {
  const at::Tensor x = at::randn({kBatch, kTokens, kHeads, 6});
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    const at::Tensor exact = Drop({}, x.to(dtype).to(at::kFloat));
    EXPECT_TRUE(Drop({}, x.to(dtype)).equal(exact.to(dtype)));
  }
  // Nor does the order in memory matter.
  const at::Tensor transposed = x.transpose(1, 2).contiguous().transpose(1, 2);
  EXPECT_TRUE(Drop({}, transposed).equal(Drop({}, x)));
}

TEST(DropoutTest, RefusesWhatIsNoProbability) {
  const auto message = [](const DropoutCase& c, const at::Tensor& x) {
    OwnOpRunner runner = Runner(c, {});
    return std::string(runner.Tensor(x).Tensor(at::scalar_tensor(1)).Run().status().message());
  };
  EXPECT_THAT(message({.p = -0.1}, Ones()), HasSubstr("p (-0.1) must be a probability"));
  EXPECT_THAT(message({.p = 1.5}, Ones()), HasSubstr("p (1.5)"));
  EXPECT_THAT(message({.p = NAN}, Ones()), HasSubstr("must be a probability"));
  EXPECT_THAT(message({.node = -1}, Ones()), HasSubstr("node (-1) must be 0 to 4294967295"));
  EXPECT_THAT(message({}, at::ones({3})), HasSubstr("x [3] must be [4, 13, 4, 6]"));
}

}  // namespace
}  // namespace autosp
