// The bounds of compiler/program/attention_workspace.h against what the ops allocate.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "compiler/program/attention_workspace.h"
#include "tests/worker/ops/attention_ring.h"
#include "worker/executor/device_memory.h"
#include "worker/ops/attention_kernels.h"
#include "worker/ops/attention_tiles.h"

namespace autosp {
namespace {

// What one call of an op allocates at its peak, and the bound on it.
struct Measured {
  int64_t peak_bytes = 0;
  int64_t bound_bytes = 0;
};

AttentionShape ShapeOf(const AttentionCase& c, int64_t q_len, int64_t k_len) {
  AttentionShape shape;
  shape.batch = c.batch;
  shape.num_heads = c.num_heads;
  shape.num_kv_heads = c.num_kv_heads;
  shape.q_len = q_len;
  shape.k_len = k_len;
  shape.qk_head_dim = c.head_dim;
  shape.v_head_dim = c.v_head_dim;
  shape.element_bytes = static_cast<int64_t>(c10::elementSize(c.dtype));
  shape.causal = c.causal;
  shape.window = c.window;
  shape.has_docs = c.has_docs();
  shape.num_threads = at::get_num_threads();
  return shape;
}

// The op on the shards of the last member at its first hop, which is its largest.
Measured Measure(const AttentionCase& c, bool is_backward) {
  const int64_t q_len = c.q_size / c.ring;
  const int64_t k_len = c.num_keys() / c.ring;
  const auto zeros = [&](int64_t heads, int64_t tokens, int64_t columns, at::ScalarType dtype) {
    return at::zeros({c.batch, heads, tokens, columns}, dtype);
  };
  const std::string op = is_backward ? "autosp.attend_block_backward_" : "autosp.attend_block_";
  OwnOpRunner runner = AttentionRunner(c, op, c.ring - 1);
  const at::Tensor q = zeros(c.num_heads, q_len, c.head_dim, c.dtype);
  const at::Tensor k = zeros(c.num_kv_heads, k_len, c.head_dim, c.dtype);
  const at::Tensor v = zeros(c.num_kv_heads, k_len, c.v_head_dim, c.dtype);
  const at::Tensor out = zeros(c.num_heads, q_len, c.v_head_dim, c.dtype);
  const at::Tensor lse = at::zeros({c.batch, c.num_heads, q_len});
  if (is_backward) {
    for (const at::Tensor& x : {q, k, v}) runner.Tensor(at::zeros(x.sizes(), at::kFloat));
    runner.Tensor(out).Tensor(q).Tensor(k).Tensor(v).Tensor(out).Tensor(lse);
  } else {
    runner.Tensor(out.to(at::kFloat)).Tensor(lse).Tensor(q).Tensor(k).Tensor(v);
  }
  AddDocs(c, runner);
  runner.Literal(SymInt(0));
  const AttentionShape shape = ShapeOf(c, q_len, k_len);
  MemoryAccount account("op");
  const MemoryScope scope(&account);
  const absl::Status status = runner.Run().status();
  EXPECT_TRUE(status.ok()) << status;
  return {account.peak_bytes(),
          is_backward ? AttendBlockBackwardWorkspace(shape) : AttendBlockWorkspace(shape)};
}

struct Row {
  AttentionCase c;
  bool is_tight = true;  // the bound is within a quarter of the peak
};

std::vector<Row> Rows() {
  std::vector<Row> rows;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    AttentionCase plain;
    plain.dtype = dtype;
    plain.q_size = 1024;
    plain.head_dim = plain.v_head_dim = 64;
    const auto add = [&](auto change, bool is_tight = true) {
      AttentionCase c = plain;
      change(c);
      rows.push_back({c, is_tight});
    };
    add([](AttentionCase&) {});
    add([](AttentionCase& c) { c.causal = true; });
    add([](AttentionCase& c) { c.num_kv_heads = 1; });
    add([](AttentionCase& c) { c.q_size = 100; });
    add([](AttentionCase& c) { c.ring = 2, c.layout = Layout::kZigzag, c.causal = true; });
    add([](AttentionCase& c) { c.batch = 3, c.num_heads = c.num_kv_heads = 8, c.causal = true; });
    add([](AttentionCase& c) {
      c.batch = 1, c.q_size = 6000;
      c.num_heads = 2, c.num_kv_heads = 1;
    });
    add([](AttentionCase& c) { c.q_size = 700, c.k_size = 300; });
    add([](AttentionCase& c) { c.v_head_dim = 32; });
    add([](AttentionCase& c) { c.head_dim = 40; });
    // One document is the largest tile that there can be.
    add([](AttentionCase& c) { c.q_docs = c.k_docs = at::zeros({c.batch, c.q_size}, at::kLong); });
    add(
        [](AttentionCase& c) {
          c.q_docs = c.k_docs = at::arange(c.q_size).div(9, "floor").repeat({2, 1});
        },
        false);
    add(
        [](AttentionCase& c) {
          c.q_docs = c.k_docs = at::arange(c.q_size).remainder(2).repeat({2, 1});
        },
        false);
    for (const int64_t window : {30, 200, 256, 1000}) {
      add([&](AttentionCase& c) { c.window = window, c.causal = true; }, false);
      add([&](AttentionCase& c) { c.window = window; }, false);
    }
  }
  return rows;
}

TEST(AttentionMemoryTest, StaysWithinTheBoundAndNearIt) {
  double loosest = 1;
  double loosest_with_windows = 1;
  for (const Row& row : Rows()) {
    for (const bool is_backward : {false, true}) {
      const Measured measured = Measure(row.c, is_backward);
      const std::string what = row.c.Name() + (is_backward ? " backward" : " forward") +
                               (row.c.dtype == at::kFloat ? "" : " bf16");
      EXPECT_LE(measured.peak_bytes, measured.bound_bytes) << what;
      const double ratio =
          static_cast<double>(measured.bound_bytes) / static_cast<double>(measured.peak_bytes);
      if (row.c.window > 0) loosest_with_windows = std::max(loosest_with_windows, ratio);
      if (!row.is_tight) continue;
      EXPECT_GE(measured.peak_bytes, measured.bound_bytes * 3 / 4) << what;
      loosest = std::max(loosest, ratio);
    }
  }
  RecordProperty("loosest", std::to_string(loosest));
  RecordProperty("loosest_with_windows", std::to_string(loosest_with_windows));
}

// What is allocated during `run`.
template <typename Run>
int64_t PeakOf(Run run) {
  MemoryAccount account("products");
  const MemoryScope scope(&account);
  const auto results = run();
  return account.peak_bytes();
}

// GPUs run matrix products by the same ops of ATen.
TEST(AttentionMemoryTest, ProductsStayWithinTheirBound) {
  struct Case {
    int64_t queries, keys, head_dim;
    int64_t group = 1;
    bool causal = false;
    bool has_mask = false;
    bool is_banded = false;
  };
  constexpr int64_t kKvHeads = 3;
  const Case cases[] = {
      {.queries = 63, .keys = 63, .head_dim = 64, .causal = true},
      {.queries = 63, .keys = 4096, .head_dim = 64},
      {.queries = 63, .keys = 4096, .head_dim = 128, .group = 4},
      {.queries = 4096, .keys = 9, .head_dim = 128, .group = 4},
      {.queries = 1, .keys = 1000, .head_dim = 32, .group = 2},
      {.queries = 256, .keys = 256, .head_dim = 32, .group = 2, .has_mask = true},
      {.queries = 40, .keys = 2000, .head_dim = 64, .group = 8, .is_banded = true},
  };
  for (const Case& c : cases) {
    const at::TensorOptions half = at::kBFloat16;
    const auto rows = [&](int64_t heads, int64_t tokens) {
      return at::zeros({2, tokens, heads, c.head_dim}, half).transpose(1, 2);
    };
    AttentionInputs inputs = {.q = rows(kKvHeads * c.group, c.queries),
                              .k = rows(kKvHeads, c.keys),
                              .v = rows(kKvHeads, c.keys)};
    inputs.causal = c.causal;
    if (c.has_mask) inputs.mask = at::zeros({1, 1, c.queries, c.keys});
    if (c.is_banded) inputs.band = AttentionInputs::Band{100, 1500};
    const at::Tensor lse = at::zeros({2, kKvHeads * c.group, c.queries});
    const int64_t bound = 2 * kKvHeads * ProductsBytes(c.group, c.queries, c.keys, c.head_dim);
    const auto kernel = AttentionKernel::kProducts;
    const int64_t forward = PeakOf([&] { return RunAttention(kernel, inputs); });
    const int64_t backward =
        PeakOf([&] { return RunAttentionBackward(kernel, inputs, inputs.q, inputs.q, lse); });
    const std::string what = std::to_string(c.queries) + " x " + std::to_string(c.keys);
    EXPECT_LE(forward, bound) << what;
    EXPECT_LE(backward, bound) << what;
    EXPECT_GE(backward, bound / 2) << what;
  }
}

// Every slice of every tile of a GPU has room within the bound.
TEST(AttentionMemoryTest, TilesOfGpusStayWithinTheBound) {
  std::mt19937 random(7);
  const auto pick = [&](std::vector<int64_t> from) { return from[random() % from.size()]; };
  for (int i = 0; i < 400; ++i) {
    AttentionShape shape = {.batch = pick({1, 3}),
                            .num_heads = 16,
                            .num_kv_heads = pick({1, 4, 16}),
                            .q_len = pick({1, 40, 100, 700, 5000, 33'000, 40'000}),
                            .k_len = pick({1, 40, 100, 700, 5000, 33'000, 40'000}),
                            .qk_head_dim = pick({64, 128}),
                            .v_head_dim = 64,
                            .element_bytes = 2,
                            .window = pick({0, 0, 30, 3000}),
                            .on_gpu = true};
    const AttentionRule rule = {.causal = random() % 2 == 0,
                                .window = shape.window,
                                .band_rows = AttentionMaxRows(shape.window, true)};
    shape.causal = rule.causal;
    // Queries that come after the keys, or in the midst of them.
    const int64_t ahead = pick({0, 10, 600, 20'000});
    const auto tiles =
        CutFewTokens(CutTiles(PlanTiles({{0, ahead, shape.q_len}}, {{0, 0, shape.k_len}}, rule),
                              AttentionMaxRows(shape.window, true), AttentionSide(true)),
                     kGpuMinTokens, kMaxProductsTokens);
    for (const AttentionTile& tile : tiles) {
      const AttentionSlice forward = AttendSlice(shape, shape.batch, tile.q_size, tile.k_size);
      const AttentionSlice backward =
          AttendBackwardSlice(shape, shape.batch, tile.q_size, tile.k_size);
      EXPECT_LE(
          forward.batches * forward.kv_heads * AttendUnitBytes(shape, tile.q_size, tile.k_size),
          AttendBlockWorkspace(shape));
      EXPECT_LE(backward.batches * backward.kv_heads *
                    AttendBackwardUnitBytes(shape, tile.q_size, tile.k_size),
                AttendBlockBackwardWorkspace(shape))
          << shape.q_len << " x " << shape.k_len << " window " << shape.window << ", tile "
          << tile.q_size << " x " << tile.k_size;
    }
  }
}

TEST(AttentionMemoryTest, DoesNotGrowWithLongSequences) {
  AttentionCase c;
  c.num_heads = 32;
  c.num_kv_heads = 8;
  c.head_dim = c.v_head_dim = 128;
  c.dtype = at::kBFloat16;
  const auto backward = [&](int64_t tokens) {
    AttentionShape shape = ShapeOf(c, tokens, tokens);
    shape.num_threads = 2;
    return AttendBlockBackwardWorkspace(shape);
  };
  EXPECT_EQ(backward(1 << 20), backward(1 << 13));
  EXPECT_LT(backward(1 << 20), int64_t{128} << 20);
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  autosp::InstallCountingAllocator();
  return RUN_ALL_TESTS();
}
