// Whether a tensor can be sent or received where it lies: one definition for the planner that
// predicts the buffers of collectives and for the ranks that allocate them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/types/span.h"

namespace autosp {

// Whether memory of these sizes and strides is one block for each peer behind the other, where it
// is cut along `dim`: it is contiguous, and the cut is the outermost. Of one block `dim` is 0.
inline bool IsExchangeBuffer(absl::Span<const int64_t> sizes, absl::Span<const int64_t> strides,
                             int64_t dim) {
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    if (sizes[i] != 1 && strides[i] != stride) return false;
    stride *= sizes[i];
  }
  return std::all_of(sizes.begin(), sizes.begin() + dim, [](int64_t size) { return size == 1; });
}

}  // namespace autosp
