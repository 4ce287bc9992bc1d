#include "worker/executor/packing.h"

#include <ATen/ops/from_blob.h>

#include "compiler/program/exchange_buffer.h"

namespace autosp {
namespace {

// Calls `move(piece of the tensor, its place in the buffer)` for each piece of each block.
template <typename Move>
void ForEachPiece(absl::Span<const at::Tensor> tensors, absl::Span<const BlockCut> cuts,
                  std::byte* place, Move move) {
  const int64_t num_blocks = cuts.empty() ? 0 : cuts[0].num_blocks;
  for (int64_t block = 0; block < num_blocks; ++block) {
    for (size_t i = 0; i < tensors.size(); ++i) {
      at::Tensor piece = tensors[i];
      if (num_blocks > 1) {
        const int64_t length = piece.size(cuts[i].dim) / num_blocks;
        piece = piece.narrow(cuts[i].dim, block * length, length);
      }
      move(piece, at::from_blob(place, piece.sizes(), piece.options()));
      place += piece.numel() * static_cast<int64_t>(piece.element_size());
    }
  }
}

}  // namespace

int64_t BlockBytes(absl::Span<const ValueLayout> layouts, absl::Span<const BlockCut> cuts) {
  int64_t bytes = 0;
  for (size_t i = 0; i < layouts.size(); ++i) {
    int64_t numel = 1;
    for (const int64_t size : layouts[i].sizes) numel *= size;
    bytes += numel / cuts[i].num_blocks * static_cast<int64_t>(c10::elementSize(layouts[i].dtype));
  }
  return bytes;
}

bool IsBuffer(const ValueLayout& layout, const BlockCut& cut) {
  const auto span = [](const at::DimVector& x) { return absl::MakeConstSpan(x.data(), x.size()); };
  return IsExchangeBuffer(span(layout.sizes), span(layout.strides),
                          cut.num_blocks == 1 ? 0 : cut.dim);
}

void Pack(absl::Span<const at::Tensor> tensors, absl::Span<const BlockCut> cuts,
          std::byte* buffer) {
  ForEachPiece(tensors, cuts, buffer,
               [](const at::Tensor& piece, const at::Tensor& place) { place.copy_(piece); });
}

void Unpack(const std::byte* buffer, absl::Span<const BlockCut> cuts,
            absl::Span<const at::Tensor> tensors) {
  ForEachPiece(tensors, cuts, const_cast<std::byte*>(buffer),
               [](const at::Tensor& piece, const at::Tensor& place) { piece.copy_(place); });
}

}  // namespace autosp
