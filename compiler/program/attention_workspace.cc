#include "compiler/program/attention_workspace.h"

#include <algorithm>

#include "common/round_up.h"

namespace autosp {
namespace {

constexpr int64_t kSide = 4096;
constexpr int64_t kGpuSide = 32768;

// What the units of a slice may have together.
int64_t SliceBudget(const AttentionShape& shape) { return int64_t{shape.on_gpu ? 256 : 8} << 20; }
// The same for a tile that products compute: it has few pairs, and much for each.
constexpr int64_t kProductsBudget = int64_t{64} << 20;

AttentionSlice SliceOf(const AttentionShape& shape, int64_t batches, int64_t units) {
  if (units < shape.num_kv_heads) return {1, std::max<int64_t>(1, units)};
  return {std::min(batches, units / shape.num_kv_heads), shape.num_kv_heads};
}

int64_t NumUnits(const AttentionSlice& slice) { return slice.batches * slice.kv_heads; }

// A plan with documents is made for each batch element.
int64_t BatchesOfAPlan(const AttentionShape& shape) { return shape.has_docs ? 1 : shape.batch; }

// The blocks that the kernel works in, by its own choice.
struct KernelBlock {
  int64_t rows = 0;
  int64_t keys = 0;
};
KernelBlock BlockOf(int64_t rows, int64_t keys) {
  const int64_t block_rows = rows >= 768 ? 256 : (rows >= 192 ? 64 : 32);
  return {std::min(block_rows, rows), std::min<int64_t>(512, keys)};
}

// The most rows and keys of a tile. What no border of a window cuts is within its reach, and a tile
// that both borders cut is at most thrice as wide as it is high.
KernelBlock LargestTile(const AttentionShape& shape) {
  const int64_t rows = AttentionMaxRows(shape.window, shape.on_gpu);
  int64_t keys = AttentionSide(shape.on_gpu);
  if (shape.window > 0) {
    const int64_t reach = shape.causal ? shape.window : 2 * shape.window;
    // On a GPU a band of so many rows.
    keys = shape.on_gpu ? rows + reach : std::min(keys, std::max(reach, 3 * rows));
  }
  return {std::min(shape.q_len, rows), std::min(shape.k_len, keys)};
}

bool IsByProducts(const AttentionShape& shape, int64_t rows, int64_t keys) {
  return shape.on_gpu && std::min(rows, keys) < kGpuMinTokens;
}

int64_t TileBudget(const AttentionShape& shape, int64_t rows, int64_t keys) {
  return IsByProducts(shape, rows, keys) ? kProductsBudget : SliceBudget(shape);
}

// The tile that decides how many units are a slice. Halves and rests of tiles then have as many as
// the largest, so that this one is the peak; windows and documents have small tiles in great
// number, which had better be of many units, and what products compute has more for each token.
KernelBlock TileOfSlices(const AttentionShape& shape, int64_t rows, int64_t keys) {
  const bool is_plain = shape.window == 0 && !shape.has_docs && !IsByProducts(shape, rows, keys);
  return is_plain ? LargestTile(shape) : KernelBlock{rows, keys};
}

// What a slice has at most, where the largest tile has `unit_bytes` for each of `slice`.
int64_t SliceBytes(const AttentionShape& shape, const AttentionSlice& slice, int64_t unit_bytes) {
  const int64_t of_largest = NumUnits(slice) * unit_bytes;
  if (shape.window == 0 && !shape.has_docs) return of_largest;
  const int64_t of_all = BatchesOfAPlan(shape) * shape.num_kv_heads * unit_bytes;
  return std::max(of_largest, std::min(of_all, SliceBudget(shape)));
}

int64_t MaskBytes(const AttentionShape& shape) {
  int64_t pairs = 0;
  if (shape.window > 0 && !shape.on_gpu) {
    // A corner, or where the window is as narrow as the tile is high, all of the tile.
    const int64_t rows = AttentionWindowRows(shape.window);
    const int64_t reach = shape.causal ? shape.window : 2 * shape.window;
    pairs =
        std::min(shape.q_len, rows) * std::min(shape.k_len, reach < 2 * rows ? rows + reach : rows);
  }
  if (shape.has_docs) {
    const int64_t block =
        std::min(shape.q_len, kAttentionBlock) * std::min(shape.k_len, kAttentionBlock);
    pairs = std::max(pairs, block);
  }
  return pairs * 4;
}

// Copies that the kernel needs of an operand with this many columns: it knows one H, and on CPUs
// fp32.
int64_t NumCopies(const AttentionShape& shape, int64_t columns) {
  const bool converts = !shape.on_gpu && shape.element_bytes != 4;
  return converts || columns != shape.head_dim() ? 1 : 0;
}

// Numbers of a row beside its columns: what weights of a merge are computed from.
constexpr int64_t kGpuRowNumbers = 8;

// What matrix products have for a unit of a tile, if they compute it. Where there are documents,
// small tiles have masks.
int64_t TileProductsBytes(const AttentionShape& shape, int64_t rows, int64_t keys) {
  const bool may_have_mask = shape.has_docs && std::max(rows, keys) <= kAttentionBlock;
  if (!IsByProducts(shape, rows, keys) && !may_have_mask) return 0;
  return ProductsBytes(shape.group(), rows, keys, shape.head_dim());
}

int64_t GpuUnitBytes(const AttentionShape& shape, int64_t rows, int64_t keys) {
  const int64_t copies_q = NumCopies(shape, shape.qk_head_dim);
  const int64_t copies_v = NumCopies(shape, shape.v_head_dim);
  const int64_t row_bytes = shape.head_dim() * shape.element_bytes;
  // The output, and itself in fp32 to be merged.
  const int64_t row_numbers = 4 * (shape.head_dim() + kGpuRowNumbers);
  return shape.group() * rows * ((1 + copies_q) * row_bytes + row_numbers) +
         keys * (copies_q + copies_v) * row_bytes + TileProductsBytes(shape, rows, keys);
}

int64_t GpuBackwardUnitBytes(const AttentionShape& shape, int64_t rows, int64_t keys) {
  const int64_t copies_q = NumCopies(shape, shape.qk_head_dim);
  const int64_t copies_v = NumCopies(shape, shape.v_head_dim);
  const int64_t row_bytes = shape.head_dim() * shape.element_bytes;
  // The kernels copy the output and its gradient, which lie in the order of heads; those of k and v
  // are first made for each query head.
  constexpr int64_t kCopiesOfOut = 2;
  const int64_t repeated = shape.group() > 1 ? 2 * shape.group() : 0;
  return shape.group() * (rows * ((1 + copies_q + kCopiesOfOut) * row_bytes + 4 * kGpuRowNumbers) +
                          FlashSumsBytes(rows, shape.head_dim())) +
         keys * (2 + repeated + copies_q + copies_v) * row_bytes +
         TileProductsBytes(shape, rows, keys);
}

// What a slice of a tile of few tokens or with a mask has at most, where one of the largest tile
// may have less.
int64_t ProductsSliceBytes(const AttentionShape& shape, const KernelBlock& largest,
                           int64_t (*unit_bytes)(const AttentionShape&, int64_t, int64_t)) {
  if (!shape.on_gpu) return 0;
  const auto of = [&](int64_t rows, int64_t keys, int64_t budget) {
    const int64_t unit =
        unit_bytes(shape, std::min(rows, largest.rows), std::min(keys, largest.keys));
    const int64_t of_all = BatchesOfAPlan(shape) * shape.num_kv_heads * unit;
    return std::min(of_all, std::max(unit, budget));
  };
  constexpr int64_t kFew = kGpuMinTokens - 1;
  const int64_t longest = shape.window > 0 ? largest.keys : kMaxProductsTokens;
  const int64_t of_few =
      std::max(of(kFew, longest, kProductsBudget), of(longest, kFew, kProductsBudget));
  if (!shape.has_docs) return of_few;
  return std::max(of_few, of(kAttentionBlock, kAttentionBlock, SliceBudget(shape)));
}

int64_t ThreadBytes(const AttentionShape& shape, int64_t block_bytes) {
  return shape.on_gpu ? 0 : shape.num_threads * block_bytes;
}

}  // namespace

int64_t ProductsBytes(int64_t group, int64_t queries, int64_t keys, int64_t head_dim) {
  // Operands, their copies in the order of heads, and results; scores and their gradients.
  constexpr int64_t kRows = 5;
  constexpr int64_t kMatrices = 3;
  return 4 * group * (kRows * (queries + keys) * head_dim + kMatrices * queries * keys);
}

int64_t FlashSumsBytes(int64_t queries, int64_t head_dim) {
  return RoundUp(queries, 128) * (RoundUp(head_dim, head_dim <= 128 ? 32 : 64) + 1) * 4;
}

int64_t AttentionWindowRows(int64_t window) {
  return std::clamp<int64_t>(window / 256 * 64, 64, 512);
}

int64_t AttentionSide(bool on_gpu) { return on_gpu ? kGpuSide : kSide; }

int64_t AttentionMaxRows(int64_t window, bool on_gpu) {
  return window == 0 || on_gpu ? AttentionSide(on_gpu) : AttentionWindowRows(window);
}

int64_t AttendUnitBytes(const AttentionShape& shape, int64_t rows, int64_t keys) {
  if (shape.on_gpu) return GpuUnitBytes(shape, rows, keys);
  const int64_t copies_q = NumCopies(shape, shape.qk_head_dim);
  const int64_t copies_v = NumCopies(shape, shape.v_head_dim);
  const int64_t row_bytes = shape.head_dim() * 4;
  return shape.group() * rows * ((1 + copies_q) * row_bytes + 4) +
         keys * (copies_q + copies_v) * row_bytes;
}

int64_t AttendBackwardUnitBytes(const AttentionShape& shape, int64_t rows, int64_t keys) {
  if (shape.on_gpu) return GpuBackwardUnitBytes(shape, rows, keys);
  const int64_t copies_q = NumCopies(shape, shape.qk_head_dim);
  const int64_t copies_v = NumCopies(shape, shape.v_head_dim);
  const int64_t row_bytes = shape.head_dim() * 4;
  // Gradients of q, k and v, always a copy of the output's gradient, and one of the log-sum-exp.
  return shape.group() * rows * ((2 + copies_q + copies_v) * row_bytes + 4) +
         keys * (2 + copies_q + copies_v) * row_bytes;
}

AttentionSlice AttendSlice(const AttentionShape& shape, int64_t batches, int64_t rows,
                           int64_t keys) {
  const KernelBlock tile = TileOfSlices(shape, rows, keys);
  const int64_t budget = TileBudget(shape, rows, keys);
  return SliceOf(shape, batches, budget / AttendUnitBytes(shape, tile.rows, tile.keys));
}

AttentionSlice AttendBackwardSlice(const AttentionShape& shape, int64_t batches, int64_t rows,
                                   int64_t keys) {
  const KernelBlock tile = TileOfSlices(shape, rows, keys);
  const int64_t units =
      TileBudget(shape, rows, keys) / AttendBackwardUnitBytes(shape, tile.rows, tile.keys);
  return SliceOf(shape, batches, shape.on_gpu ? units : std::max(units, shape.num_threads));
}

int64_t AttendBlockWorkspace(const AttentionShape& shape) {
  const KernelBlock tile = LargestTile(shape);
  if (tile.rows == 0 || tile.keys == 0) return 0;
  const KernelBlock block = BlockOf(tile.rows, tile.keys);
  const int64_t thread_bytes = 4 * block.rows * (block.keys + 2 + shape.head_dim());
  const AttentionSlice slice = AttendSlice(shape, BatchesOfAPlan(shape), tile.rows, tile.keys);
  return MaskBytes(shape) + ThreadBytes(shape, thread_bytes) +
         std::max(SliceBytes(shape, slice, AttendUnitBytes(shape, tile.rows, tile.keys)),
                  ProductsSliceBytes(shape, tile, &AttendUnitBytes));
}

int64_t AttendBlockBackwardWorkspace(const AttentionShape& shape) {
  const KernelBlock tile = LargestTile(shape);
  if (tile.rows == 0 || tile.keys == 0) return 0;
  const KernelBlock block = BlockOf(tile.rows, tile.keys);
  const int64_t thread_bytes = 4 * block.rows * (2 * block.keys + 1);
  const AttentionSlice slice =
      AttendBackwardSlice(shape, BatchesOfAPlan(shape), tile.rows, tile.keys);
  return MaskBytes(shape) + ThreadBytes(shape, thread_bytes) +
         std::max(SliceBytes(shape, slice, AttendBackwardUnitBytes(shape, tile.rows, tile.keys)),
                  ProductsSliceBytes(shape, tile, &AttendBackwardUnitBytes));
}

int64_t CpuFlashWorkspace(const AttentionShape& shape) {
  const KernelBlock block = BlockOf(shape.q_len, shape.k_len);
  // Products take probabilities of half types as they are.
  const int64_t score_bytes = shape.element_bytes == 4 ? 4 : 4 + shape.element_bytes;
  return shape.num_threads * block.rows * (score_bytes * block.keys + 4 * (2 + shape.head_dim()));
}

int64_t CpuFlashBackwardWorkspace(const AttentionShape& shape) {
  const KernelBlock block = BlockOf(shape.q_len, shape.k_len);
  const int64_t score_bytes = shape.element_bytes == 4 ? 4 : 4 + shape.element_bytes;
  return shape.num_threads * block.rows * (2 * score_bytes * block.keys + 4);
}

}  // namespace autosp
