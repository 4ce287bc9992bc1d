// What the ops autosp.attend_block_ and autosp.attend_block_backward_ allocate themselves: one
// definition for the planner that predicts it and for the op that cuts its work to stay within it.
//
// The kernel of ATen returns whole tensors for each tile of queries x keys (worker/ops/
// attention_tiles.h), and is called in fp32: operands of half types are converted. So that this is
// little beside the operands, a tile has at most AttentionSide queries and keys, and of the units,
// which are one batch element and one kv head with its query heads, a slice is computed at a time.
// Kernels of GPUs take half types as they are, and windows without a mask; there tiles and slices
// are large, so that they fill the GPU and outweigh what it costs to start them.
// B batch, N query heads, K kv heads, Sq / Sk local numbers of query / key tokens, H head_dim.
#pragma once

#include <cstdint>
#include <string_view>

namespace autosp {

struct AttentionShape {
  int64_t batch = 1;
  int64_t num_heads = 1;
  int64_t num_kv_heads = 1;
  int64_t q_len = 0;        // Sq
  int64_t k_len = 0;        // Sk
  int64_t qk_head_dim = 0;  // H of q and k
  int64_t v_head_dim = 0;   // H of v and of the output
  int64_t element_bytes = 4;
  bool causal = false;
  int64_t window = 0;
  bool has_docs = false;
  int64_t num_threads = 1;  // of the rank
  bool on_gpu = false;      // by the kernels of GPUs for half types

  int64_t group() const { return num_heads / num_kv_heads; }
  int64_t head_dim() const { return qk_head_dim > v_head_dim ? qk_head_dim : v_head_dim; }
};

// Rows of a tile that a window cuts: few, as its masked corner is a square of that side, and not so
// few that the calls outweigh the work.
int64_t AttentionWindowRows(int64_t window);

// The most keys of one call of the kernel, and the most queries where there is no window.
int64_t AttentionSide(bool on_gpu);
// The most queries: with a window, on CPUs, the rows that it cuts into tiles of.
int64_t AttentionMaxRows(int64_t window, bool on_gpu);

// Tiles of fewer queries or keys, and masked ones, are computed by matrix products in fp32 on GPUs.
// With other kernels gradients of q and k in bf16 were garbage where a tile had fewer than 16, on
// an H100 and an H200 (torch 2.11). The memory-efficient kernel reads the output as [B, S, N, H],
// whatever its strides are, and had been given [B, N, S, H]: read so, on a CPU, outputs give just
// these wrong gradients, and the others right. It gets a copy now; none was run on such tiles
// since, so that products keep them.
inline constexpr int64_t kGpuMinTokens = 64;
// The longer side of such a tile, where no window and no document cuts it.
inline constexpr int64_t kMaxProductsTokens = 4096;

// cuDNN 9 is reported to take the rest of a block of 128 on Hopper for scores of 0, not -inf: for
// a log-sum-exp below -88 gradients are NaN. Of fewer tokens flash is as fast.
inline bool FitsCudnn(int64_t queries, int64_t keys) {
  constexpr int64_t kBlock = 128;
  return queries % kBlock == 0 && keys % kBlock == 0;
}

// On a GPU the derivative of attention over more tokens than this runs in squares of AttentionSide
// tokens by the kernels of flash or cuDNN, and the program says so in an attribute. Kernels sum the
// gradient of q in fp32, and make those of k and v for each query head before they sum them: for
// millions of tokens as much as all operands. A square of one head is about 1 TFLOP, so that what
// it costs to start kernels does not count.
inline constexpr int64_t kWholeDerivative = 524288;
inline constexpr std::string_view kDerivativeSide = "side";

// What matrix products allocate for one key head and its `group` query heads, with their results.
int64_t ProductsBytes(int64_t group, int64_t queries, int64_t keys, int64_t head_dim);
// What flash sums up in fp32 for one query head: the gradient of q, and a number for each query.
int64_t FlashSumsBytes(int64_t queries, int64_t head_dim);

// Documents in many parts are planned by squares of this side.
inline constexpr int64_t kAttentionBlock = 256;

// Units that one call of the kernel gets: all heads of some batch elements, or some heads of one.
struct AttentionSlice {
  int64_t batches = 1;
  int64_t kv_heads = 1;
};
// What the kernel returns for one unit, and the copies of its operands.
int64_t AttendUnitBytes(const AttentionShape& shape, int64_t rows, int64_t keys);
int64_t AttendBackwardUnitBytes(const AttentionShape& shape, int64_t rows, int64_t keys);
// As many units as have 8 MiB (on GPUs 256, or 64 for products of few tokens), at least one: of
// this tile where there are windows or documents, else of the largest of the shape.
AttentionSlice AttendSlice(const AttentionShape& shape, int64_t batches, int64_t rows,
                           int64_t keys);
// The same, but at least one for each thread: the backward kernel has no other parallelism.
AttentionSlice AttendBackwardSlice(const AttentionShape& shape, int64_t batches, int64_t rows,
                                   int64_t keys);

// Upper bounds. Within a quarter of the truth where no window cuts the work into small tiles; on
// GPUs also where few tokens may be left to products.
int64_t AttendBlockWorkspace(const AttentionShape& shape);
int64_t AttendBlockBackwardWorkspace(const AttentionShape& shape);

// What ATen's kernel for CPUs allocates in each of its threads: of attention as one op, and of its
// derivative. At most 0.6 and 1 MiB in fp32; beside toy models, as much as all else.
int64_t CpuFlashWorkspace(const AttentionShape& shape);
int64_t CpuFlashBackwardWorkspace(const AttentionShape& shape);

}  // namespace autosp
