#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/worker/ops/attention_ring.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

void ExpectClose(const at::Tensor& actual, const at::Tensor& expected, double tolerance,
                 const std::string& what) {
  ASSERT_FALSE(actual.isnan().any().item<bool>()) << what;
  EXPECT_LE(MaxError(actual, expected), tolerance) << what;
}

void ExpectExact(const AttentionCase& c, double tolerance = 1e-5) {
  const WholeOperands inputs = MakeInputs(c);
  const AttentionResults expected = DenseAttention(c, inputs);
  const auto actual = RingAttention(c, inputs);
  ASSERT_TRUE(actual.ok()) << actual.status() << c.Name();
  const auto without = [](const at::Tensor& lse) { return lse.masked_fill(lse.isinf(), 0); };
  EXPECT_TRUE(actual->lse.isinf().equal(expected.lse.isinf())) << c.Name();
  ExpectClose(without(actual->lse), without(expected.lse), tolerance, "lse of " + c.Name());
  ExpectClose(actual->out, expected.out, tolerance, "out of " + c.Name());
  ExpectClose(actual->dq, expected.dq, tolerance, "dq of " + c.Name());
  ExpectClose(actual->dk, expected.dk, tolerance, "dk of " + c.Name());
  ExpectClose(actual->dv, expected.dv, tolerance, "dv of " + c.Name());
}

enum class Packing { kNone, kLong, kShort, kPadded, kKeyPadding };

// Documents of random lengths, others in each batch element.
void SetDocuments(Packing packing, AttentionCase& c) {
  const int64_t size = c.q_size;
  if (packing == Packing::kNone) return;
  if (packing == Packing::kKeyPadding) {
    // Queries are in document 0, as are the keys that count.
    c.k_docs = at::rand({c.batch, size}).lt(0.8).to(at::kLong) - 1;
    return;
  }
  const double boundary = packing == Packing::kShort ? 0.15 : 0.02;
  c.q_docs = at::rand({c.batch, size}).lt(boundary).to(at::kLong).cumsum(1);
  c.k_docs = c.q_docs;
  if (packing != Packing::kPadded) return;
  // Nobody attends to the tail; whole documents in it have rows that attend to nothing.
  c.k_docs = c.q_docs.clone();
  c.k_docs.narrow(1, size - size / 3, size / 3).fill_(-1);
}

class RingTest : public testing::TestWithParam<int64_t> {};

TEST_P(RingTest, EqualsDenseAttention) {
  at::manual_seed(5);
  int counter = 0;
  for (const Layout layout : {Layout::kContiguous, Layout::kZigzag}) {
    for (const bool causal : {false, true}) {
      for (const int64_t window : {0, 20, 90}) {
        for (const Packing packing : {Packing::kNone, Packing::kLong, Packing::kShort,
                                      Packing::kPadded, Packing::kKeyPadding}) {
          AttentionCase c = {.ring = GetParam(), .layout = layout};
          c.gathered = counter % 4 == 1;
          c.q_size = counter % 2 == 0 ? 192 : 203;
          c.num_kv_heads = std::vector<int64_t>{4, 2, 1}[counter % 3];
          c.causal = causal;
          c.window = window;
          SetDocuments(packing, c);
          ExpectExact(c);
          ++counter;
        }
      }
    }
  }
}
// A model that cuts the sequence into pieces is split by whole pieces.
TEST_P(RingTest, EqualsDenseAttentionOnPieces) {
  at::manual_seed(6);
  for (const Layout layout : {Layout::kContiguous, Layout::kZigzag}) {
    for (const bool gathered : {false, true}) {
      for (const int64_t pieces : {16, 13, 3}) {
        AttentionCase c = {.ring = GetParam(), .layout = layout, .piece = 12};
        c.gathered = gathered;
        c.q_size = c.piece * pieces;
        c.causal = pieces != 3;
        c.window = pieces == 13 ? 30 : 0;
        SetDocuments(pieces == 16 ? Packing::kShort : Packing::kNone, c);
        ExpectExact(c);
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Sizes, RingTest, testing::Values(1, 2, 4, 8));

TEST(AttendBlockTest, GatheredKeysOfOtherTokensAreCrossAttention) {
  at::manual_seed(15);
  ExpectExact({.ring = 4, .q_size = 90, .k_size = 201, .num_kv_heads = 2, .gathered = true});
}

TEST(AttendBlockTest, WindowsOfManyTiles) {
  at::manual_seed(6);
  for (const int64_t ring : {1, 2}) {
    for (const int64_t window : {64, 300, 600}) {
      ExpectExact({.ring = ring, .q_size = 1111, .batch = 1, .causal = true, .window = window});
    }
  }
}

TEST(AttendBlockTest, SlicesOfHeadsAndOfBatches) {
  at::manual_seed(7);
  // 3 x 4 units of 11 MiB in all, and 3.7 MiB each in backward.
  ExpectExact({.q_size = 900, .batch = 3, .num_kv_heads = 4, .head_dim = 256, .v_head_dim = 256});
}

TEST(AttendBlockTest, LongTilesAreCut) {
  at::manual_seed(13);
  ExpectExact({.q_size = 4300, .k_size = 60, .batch = 1, .num_kv_heads = 2});
  ExpectExact({.q_size = 60, .k_size = 8300, .batch = 1, .num_kv_heads = 2});
}

TEST(AttendBlockTest, UlyssesBesideTheRingPadsMore) {
  at::manual_seed(14);
  for (const bool causal : {false, true}) {
    ExpectExact(
        {.ring = 2, .ulysses = 3, .layout = Layout::kZigzag, .q_size = 85, .causal = causal});
  }
}

TEST(AttendBlockTest, CrossAttentionHasItsOwnKeys) {
  at::manual_seed(8);
  for (const int64_t ring : {1, 4}) {
    ExpectExact({.ring = ring, .q_size = 90, .k_size = 201, .num_kv_heads = 2});
    ExpectExact({.ring = ring, .q_size = 201, .k_size = 50, .causal = true});
  }
}

TEST(AttendBlockTest, ValuesMayHaveOtherHeadDims) {
  at::manual_seed(9);
  ExpectExact({.ring = 2, .head_dim = 24, .v_head_dim = 16, .causal = true});
  ExpectExact({.ring = 2, .num_kv_heads = 2, .head_dim = 16, .v_head_dim = 40});
}

// Of the output, and of the gradients of queries, keys and values.
std::vector<double> ErrorsOf(const AttentionResults& actual, const AttentionResults& expected,
                             double (*error)(const at::Tensor&, const at::Tensor&)) {
  return {error(actual.out, expected.out), error(actual.dq, expected.dq),
          error(actual.dk, expected.dk), error(actual.dv, expected.dv)};
}

// Rounding of each hop would add up; merged in fp32 it does not.
void ExpectErrorsThatDoNotGrow(at::ScalarType dtype) {
  for (const bool causal : {false, true}) {
    std::vector<double> first;
    std::vector<double> second;
    for (const int64_t ring : {1, 2, 4, 8}) {
      at::manual_seed(10);
      const AttentionCase c = {.ring = ring,
                               .layout = Layout::kZigzag,
                               .q_size = 512,
                               .num_kv_heads = 2,
                               .head_dim = 64,
                               .v_head_dim = 64,
                               .causal = causal,
                               .dtype = dtype};
      const WholeOperands inputs = MakeInputs(c);
      const AttentionResults expected = DenseAttention(c, inputs);
      const auto actual = RingAttention(c, inputs);
      ASSERT_TRUE(actual.ok()) << actual.status();
      const std::vector<double> errors = ErrorsOf(*actual, expected, L2Error);
      if (ring == 1) first = errors;
      if (ring == 2) second = errors;
      for (size_t i = 0; i < errors.size(); ++i) {
        EXPECT_LE(errors[i], 1.3 * first[i]) << "ring " << ring << " result " << i;
        EXPECT_LE(errors[i], ring > 2 ? 1.1 * second[i] : 1) << "ring " << ring << " result " << i;
        testing::Test::RecordProperty("error_" + std::to_string(causal) + "_" +
                                          std::to_string(ring) + "_" + std::to_string(i),
                                      std::to_string(errors[i]));
      }
    }
  }
}

TEST(AttendBlockTest, ErrorsInBf16DoNotGrowWithTheRing) {
  ExpectErrorsThatDoNotGrow(at::kBFloat16);
}

TEST(AttendBlockTest, ErrorsInF16DoNotGrowWithTheRing) { ExpectErrorsThatDoNotGrow(at::kHalf); }

// Where scores are in the thousands, their log-sum-exps are rounded to 1e-4. Weights of blocks that
// came from a rounded sum made outputs 7 times, and gradients of keys 3 times, less exact on a
// ring.
TEST(AttendBlockTest, PeakyAttentionIsAsExactOnARing) {
  std::vector<double> first;
  for (const int64_t ring : {1, 2, 4, 8}) {
    at::manual_seed(11);
    const AttentionCase c = {
        .ring = ring, .layout = Layout::kZigzag, .q_size = 256, .causal = true};
    WholeOperands inputs = MakeInputs(c);
    const auto rounded = [](const at::Tensor& x) { return x.to(at::kFloat).to(at::kDouble); };
    inputs.q = rounded(40 * inputs.q);
    inputs.k = rounded(40 * inputs.k);
    inputs.v = rounded(10 + inputs.v);
    const AttentionResults expected = DenseAttention(c, inputs);
    const auto actual = RingAttention(c, inputs);
    ASSERT_TRUE(actual.ok()) << actual.status();
    const std::vector<double> errors = ErrorsOf(*actual, expected, MaxError);
    if (ring == 1) first = errors;
    for (size_t i = 0; i < errors.size(); ++i) {
      EXPECT_LE(errors[i], 1.3 * first[i]) << "ring " << ring << " result " << i;
    }
  }
}

TEST(AttendBlockTest, TakesTensorsOfAnyStrides) {
  at::manual_seed(11);
  const AttentionCase c = {.q_size = 70, .causal = true, .window = 30};
  const WholeOperands inputs = MakeInputs(c);
  const AttentionResults expected = DenseAttention(c, inputs);
  // In memory [B, S, N, H], with other columns between.
  const auto strided = [](const at::Tensor& x) {
    const at::Tensor wide = at::zeros({x.size(0), x.size(2), x.size(1), x.size(3) + 5}, at::kFloat);
    const at::Tensor view = wide.transpose(1, 2).narrow(3, 2, x.size(3));
    view.copy_(x);
    return view;
  };
  const at::Tensor acc = strided(at::zeros_like(inputs.grad_out));
  const at::Tensor lse =
      at::full({c.batch, c.q_size, c.num_heads}, -INFINITY, at::kFloat).transpose(1, 2);
  OwnOpRunner forward = AttentionRunner(c, "autosp.attend_block_", 0);
  forward.Tensor(acc).Tensor(lse).Tensor(strided(inputs.q)).Tensor(strided(inputs.k));
  forward.Tensor(strided(inputs.v));
  AddDocs(c, forward);
  ASSERT_TRUE(forward.Literal(SymInt(0)).Run().ok());
  ExpectClose(acc.to(at::kDouble), expected.out, 1e-5, "out");
  const at::Tensor dq = strided(at::zeros_like(inputs.q));
  const at::Tensor dk = strided(at::zeros_like(inputs.k));
  const at::Tensor dv = strided(at::zeros_like(inputs.v));
  OwnOpRunner backward = AttentionRunner(c, "autosp.attend_block_backward_", 0);
  backward.Tensor(dq).Tensor(dk).Tensor(dv).Tensor(strided(inputs.grad_out));
  backward.Tensor(strided(inputs.q)).Tensor(strided(inputs.k)).Tensor(strided(inputs.v));
  backward.Tensor(acc).Tensor(lse);
  AddDocs(c, backward);
  ASSERT_TRUE(backward.Literal(SymInt(0)).Run().ok());
  ExpectClose(dq.to(at::kDouble), expected.dq, 1e-5, "dq");
  ExpectClose(dk.to(at::kDouble), expected.dk, 1e-5, "dk");
  ExpectClose(dv.to(at::kDouble), expected.dv, 1e-5, "dv");
}

// A forward call with one thing wrong.
struct Wrong {
  AttentionCase c;
  at::Tensor acc = at::zeros({1, 4, 4, 16});
  at::Tensor lse = at::zeros({1, 4, 4});
  at::Tensor q = at::zeros({1, 4, 4, 16});
  at::Tensor k = at::zeros({1, 4, 4, 16});
  at::Tensor v = at::zeros({1, 4, 4, 16});
  at::Tensor docs = {};
  Argument hop = SymInt(0);
  std::string axes = "ring";
  std::string factor = "seq";

  Wrong() {
    c.ring = 2;
    c.q_size = 8;
  }

  std::string Message() const {
    OwnOpRunner runner = AttentionRunner(c, "autosp.attend_block_", 0);
    runner.Attribute("axes", axes).Attribute("factor", factor);
    runner.Tensor(acc).Tensor(lse).Tensor(q).Tensor(k).Tensor(v);
    if (docs.defined()) {
      runner.Tensor(docs).Tensor(docs);
    } else {
      runner.Literal(None()).Literal(None());
    }
    return std::string(runner.Literal(hop).Run().status().message());
  }
};

TEST(AttendBlockTest, RefusesWhatDoesNotFit) {
  struct Row {
    void (*spoil)(Wrong&);
    std::string message;
  };
  const Row rows[] = {
      {[](Wrong& w) { w.hop = SymInt(2); }, "hop (2) must be less than the number of hops, 2"},
      {[](Wrong& w) { w.hop = SymInt(-1); }, "hop (-1)"},
      {[](Wrong& w) { w.hop = None(); }, "hop must be an integer or the variable of a loop"},
      {[](Wrong& w) { w.axes = "", w.hop = SymInt(1); },
       "hop (1) must be less than the number of hops, 1"},
      {[](Wrong& w) { w.c.gathered = true, w.hop = SymInt(1); },
       "hop (1) must be less than the number of hops, 1"},
      {[](Wrong& w) { w.c.gathered = true, w.hop = SymInt(0); },
       "there are 4 keys, and the shards of seq have 8"},
      {[](Wrong& w) { w.axes = "rings"; }, "'rings' is not one of"},
      {[](Wrong& w) { w.factor = "words"; }, "factor 'words' is not one of"},
      {[](Wrong& w) { w.c.window = -3; }, "window (-3) must be 0 for none, or positive"},
      {[](Wrong& w) {
         w.q = at::zeros({1, 4, 5, 16});
       },
       "must be f32 [1, 4, 5, 16]"},
      {[](Wrong& w) { w.c.q_size = 20; }, "there are 4 queries, and the shard of seq has 10"},
      {[](Wrong& w) {
         w.k = at::zeros({1, 3, 4, 16});
       },
       "N a multiple of K"},
      {[](Wrong& w) {
         w.k = at::zeros({1, 4, 4, 16}, at::kHalf);
       },
       "one dtype, f32, bf16 or f16"},
      {[](Wrong& w) {
         w.k = at::zeros({1, 4, 16, 4}).transpose(2, 3);
       },
       "must be contiguous"},
      {[](Wrong& w) {
         w.acc = at::zeros({1, 4, 4, 16}, at::kBFloat16);
       },
       "must be f32"},
      {[](Wrong& w) {
         w.docs = at::zeros({1, 7}, at::kLong);
       },
       "must be [1 or 1, at least 8]"},
      {[](Wrong& w) {
         w.docs = at::zeros({1, 8}, at::kInt);
       },
       "docs must be i64"},
  };
  EXPECT_EQ(Wrong().Message(), "");
  for (const Row& row : rows) {
    Wrong wrong;
    row.spoil(wrong);
    EXPECT_THAT(wrong.Message(), HasSubstr(row.message));
  }
}

TEST(AttendBlockTest, WithoutAxesAllIsWhole) {
  // 8 tokens, two of which are padding.
  Wrong call;
  call.c.q_size = 6;
  call.axes = "";
  call.acc = at::zeros({1, 4, 8, 16});
  call.lse = at::full({1, 4, 8}, -INFINITY);
  call.q = at::zeros({1, 4, 8, 16});
  call.k = at::zeros({1, 4, 8, 16});
  call.v = at::arange(8).to(at::kFloat).view({1, 1, 8, 1}).expand({1, 4, 8, 16}).contiguous();
  ASSERT_EQ(call.Message(), "");
  EXPECT_TRUE(at::allclose(call.acc.narrow(2, 0, 6), at::full({1, 4, 6, 16}, 2.5)));
}

}  // namespace
}  // namespace autosp
