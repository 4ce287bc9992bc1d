// What autosp.cross_entropy, cross_entropy_sum and cross_entropy_backward_ allocate on a GPU: one
// definition for the planner that predicts it and for the ops that cut their work to stay within
// it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace autosp {

// Rows of logits [T, V] that are worked on at a time: of fp32 copies of 64 MiB, or of 264 rows, two
// for each multiprocessor of an H100, where a kernel computes a row in one of them.
inline int64_t DeviceLossRows(int64_t num_classes) {
  constexpr int64_t kElements = int64_t{1} << 24;
  constexpr int64_t kLeastRows = 264;
  return std::max(kLeastRows, kElements / std::max<int64_t>(1, num_classes));
}

// Logarithms of probabilities, in the backward pass their gradients too, and logits of a half type
// in fp32.
inline int64_t DeviceLossWorkspace(int64_t num_tokens, int64_t num_classes, bool is_half,
                                   bool is_backward) {
  const int64_t rows = std::min(num_tokens, DeviceLossRows(num_classes));
  return rows * num_classes * 4 * (1 + (is_half ? 1 : 0) + (is_backward ? 1 : 0));
}

}  // namespace autosp
