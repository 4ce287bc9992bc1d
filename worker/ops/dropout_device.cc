#include "worker/ops/dropout_device.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <array>

namespace autosp {
namespace {

constexpr int64_t kChunkElements = 1 << 22;
constexpr int64_t kLowWord = 0xFFFFFFFF;

// 32-bit words in i64 tensors. A product wraps around modulo 2^64, and its upper half is right once
// the sign that the shift brings is cut off.
struct Product {
  Product(const at::Tensor& word, int64_t factor) : wide(word.mul(factor)) {}
  at::Tensor High() const { return wide.bitwise_right_shift(32).bitwise_and_(kLowWord); }
  at::Tensor Low() const { return wide.bitwise_and(kLowWord); }
  at::Tensor wide;
};

// As Philox in philox.h, element by element.
std::array<at::Tensor, 4> PhiloxOnDevice(std::array<at::Tensor, 4> counter, PhiloxKey key) {
  auto& [a, b, c, d] = counter;
  for (int round = 0; round < 10; ++round) {
    const Product from_a(a, 0xD2511F53);
    const Product from_c(c, 0xCD9E8D57);
    a = from_c.High().bitwise_xor_(b).bitwise_xor_(int64_t{key[0]});
    b = from_c.Low();
    c = from_a.High().bitwise_xor_(d).bitwise_xor_(int64_t{key[1]});
    d = from_a.Low();
    key[0] += 0x9E3779B9U;
    key[1] += 0xBB67AE85U;
  }
  return counter;
}

// The random word of each element of the whole tensor that `index` names.
at::Tensor WordsOf(const at::Tensor& index, const RandomStream& stream) {
  const at::Tensor group = index.bitwise_right_shift(2);
  const at::Tensor lane = index.bitwise_and(3);
  const at::Tensor low = group.bitwise_and(kLowWord);
  const at::Tensor high = group.bitwise_right_shift(32);
  const at::Tensor step = at::empty_like(index).fill_(int64_t{stream.step});
  const at::Tensor seed = at::empty_like(index).fill_(int64_t{stream.seed_high});
  const std::array<at::Tensor, 4> words = PhiloxOnDevice({low, high, step, seed}, stream.key);
  at::Tensor chosen = words[0];
  for (int64_t i = 1; i < 4; ++i) chosen = at::where(lane.eq(i), words[i], chosen);
  return chosen;
}

// Some rows and columns, few enough for what is computed beside them.
struct Block {
  int64_t row = 0;
  int64_t num_rows = 0;
  int64_t column = 0;
  int64_t num_columns = 0;

  at::Tensor Of(const at::Tensor& x) const {
    return x.narrow(0, row, num_rows).narrow(1, column, num_columns);
  }
};

template <typename Visit>
void InBlocks(int64_t num_rows, int64_t num_columns, Visit visit) {
  const int64_t width = std::min(num_columns, kChunkElements);
  const int64_t height = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, width));
  for (int64_t row = 0; row < num_rows; row += height) {
    for (int64_t column = 0; column < num_columns; column += width) {
      visit(Block{row, std::min(height, num_rows - row), column,
                  std::min(width, num_columns - column)});
    }
  }
}

// Where the elements of a block are in the whole tensor.
struct Places {
  Places(const at::Tensor& row_bases, const at::Tensor& columns, const Block& block) {
    const at::Tensor bases = row_bases.narrow(0, block.row, block.num_rows).unsqueeze(1);
    const at::Tensor offsets = columns.narrow(0, block.column, block.num_columns);
    index = bases.add(offsets);
    is_padding = bases.lt(0).logical_or(offsets.lt(0));
  }
  at::Tensor index;
  at::Tensor is_padding;
};

}  // namespace

at::Tensor DropoutOnDevice(const at::Tensor& x, const at::Tensor& row_bases,
                           const at::Tensor& columns, const DropoutMask& mask) {
  const at::Tensor result = at::empty_like(x);
  InBlocks(x.size(0), x.size(1), [&](const Block& block) {
    const Places places(row_bases, columns, block);
    const at::Tensor is_dropped =
        WordsOf(places.index, mask).lt(int64_t{mask.threshold}).logical_or_(places.is_padding);
    const at::Tensor kept = block.Of(x).to(at::kFloat).mul(mask.scale);
    block.Of(result).copy_(kept.masked_fill_(is_dropped, 0));
  });
  return result;
}

void UniformOnDevice(const at::Tensor& result, const at::Tensor& row_bases,
                     const at::Tensor& columns, const RandomStream& stream) {
  InBlocks(result.size(0), result.size(1), [&](const Block& block) {
    const Places places(row_bases, columns, block);
    const at::Tensor word = WordsOf(places.index, stream).bitwise_right_shift(9);
    const at::Tensor drawn = word.to(at::kFloat).add_(0.5).mul_(0x1p-23);
    block.Of(result).copy_(drawn.masked_fill_(places.is_padding, 0));
  });
}

}  // namespace autosp
