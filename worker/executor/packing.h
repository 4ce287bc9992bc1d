// Tensors of a collective as one buffer of bytes, and back.
//
// The buffer of a fused collective is P blocks, one for each peer, or one block. A block holds, for
// each operand in turn, the operand's piece for that peer, contiguous:
//
//   peer 0: [q piece][k piece][v piece]   peer 1: [q piece][k piece][v piece]   ...
//
// A tensor whose memory already is that buffer is used in place.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "worker/executor/layout.h"

namespace autosp {

// How one tensor is divided into the blocks of a buffer.
struct BlockCut {
  int64_t num_blocks = 1;
  int64_t dim = 0;  // cut into num_blocks equal parts along it; not used when there is one block
};

// Bytes of one block of all tensors together.
int64_t BlockBytes(absl::Span<const ValueLayout> layouts, absl::Span<const BlockCut> cuts);

// Is memory of this layout, alone in a collective, its buffer?
bool IsBuffer(const ValueLayout& layout, const BlockCut& cut);

// `buffer` holds num_blocks x BlockBytes.
void Pack(absl::Span<const at::Tensor> tensors, absl::Span<const BlockCut> cuts, std::byte* buffer);
void Unpack(const std::byte* buffer, absl::Span<const BlockCut> cuts,
            absl::Span<const at::Tensor> tensors);

}  // namespace autosp
