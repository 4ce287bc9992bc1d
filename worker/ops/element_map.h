// Where the elements of a rank's part of a tensor are in the whole tensor.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "compiler/program/program.h"
#include "worker/ops/shard_indices.h"

namespace autosp {

// Elements of the innermost part of a row that follow each other locally and in the whole tensor.
struct ElementSpan {
  int64_t local = 0;
  int64_t global = 0;  // -1: padding
  int64_t length = 0;
};

// Where the local elements of a value are in the whole tensor: local element
// row * row_length + span.local is global element row_bases[row] + span.global.
struct ElementMap {
  int64_t row_length = 1;
  std::vector<int64_t> row_bases = {0};  // -1: padding
  std::vector<ElementSpan> spans;
};

ElementMap MapOf(const Program& program, const ProgramValue& value, const ShardPlace& place);

// The elements of one row, in order: offsets of the whole tensor as in ElementSpan::global, or -1.
std::vector<int64_t> ColumnsOf(const ElementMap& map);

// Calls visit(local, global, length) for each part of a row, in parallel; global: -1 in padding.
template <typename Visit>
void ForEachSpan(const ElementMap& map, Visit visit) {
  constexpr int64_t kGrainElements = 1 << 15;
  const auto num_spans = static_cast<int64_t>(map.spans.size());
  const auto num_tasks = static_cast<int64_t>(map.row_bases.size()) * num_spans;
  const int64_t task_elements =
      std::max<int64_t>(1, map.row_length / std::max<int64_t>(1, num_spans));
  const int64_t grain = std::max<int64_t>(1, kGrainElements / task_elements);
  at::parallel_for(0, num_tasks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t row = task / num_spans;
      const ElementSpan& span = map.spans[task % num_spans];
      const bool is_padding = span.global < 0 || map.row_bases[row] < 0;
      visit(row * map.row_length + span.local, is_padding ? -1 : map.row_bases[row] + span.global,
            span.length);
    }
  });
}

}  // namespace autosp
