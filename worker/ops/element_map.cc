#include "worker/ops/element_map.h"

#include <algorithm>
#include <utility>

namespace autosp {
namespace {

constexpr int64_t kSpanElements = 1 << 13;

bool IsWhole(const std::vector<int64_t>& indices, int64_t size) {
  if (static_cast<int64_t>(indices.size()) != size) return false;
  for (int64_t i = 0; i < size; ++i) {
    if (indices[i] != i) return false;
  }
  return true;
}

// Segments of a dimension whose elements are `inner` numbers each.
std::vector<ElementSpan> SpansOf(const std::vector<int64_t>& indices, int64_t inner) {
  const auto position = [](size_t i) { return static_cast<int64_t>(i); };
  std::vector<ElementSpan> spans;
  for (size_t begin = 0, end = 0; begin < indices.size(); begin = end) {
    const bool is_padding = indices[begin] < 0;
    while (
        end < indices.size() &&
        (is_padding ? indices[end] < 0 : indices[end] == indices[begin] + position(end - begin))) {
      ++end;
    }
    const int64_t length = position(end - begin) * inner;
    for (int64_t part = 0; part < length; part += kSpanElements) {
      spans.push_back({position(begin) * inner + part,
                       is_padding ? -1 : indices[begin] * inner + part,
                       std::min(kSpanElements, length - part)});
    }
  }
  return spans;
}

}  // namespace

ElementMap MapOf(const Program& program, const ProgramValue& value, const ShardPlace& place) {
  ElementMap map;
  int64_t inner = 1;
  size_t dim = value.dims.size();
  std::vector<int64_t> indices = {0};
  // Whole dimensions at the end are part of a span, and the last other one is cut into them.
  while (dim > 0) {
    const ProgramDim& factors = value.dims[--dim];
    indices = GlobalIndices(program, factors, place);
    if (dim == 0 || !IsWhole(indices, GlobalSize(program, factors))) break;
    inner *= static_cast<int64_t>(indices.size());
    indices = {0};
  }
  map.spans = SpansOf(indices, inner);
  map.row_length = static_cast<int64_t>(indices.size()) * inner;
  // The dimensions before it.
  for (size_t outer = 0; outer < dim; ++outer) {
    const int64_t size = GlobalSize(program, value.dims[outer]);
    std::vector<int64_t> bases;
    for (const int64_t base : map.row_bases) {
      for (const int64_t index : GlobalIndices(program, value.dims[outer], place)) {
        bases.push_back(base < 0 || index < 0 ? -1 : base * size + index);
      }
    }
    map.row_bases = std::move(bases);
  }
  const int64_t last_size = value.dims.empty() ? 1 : GlobalSize(program, value.dims[dim]);
  for (int64_t& base : map.row_bases) base = base < 0 ? -1 : base * last_size * inner;
  return map;
}

std::vector<int64_t> ColumnsOf(const ElementMap& map) {
  std::vector<int64_t> columns;
  columns.reserve(map.row_length);
  for (const ElementSpan& span : map.spans) {
    for (int64_t i = 0; i < span.length; ++i) {
      columns.push_back(span.global < 0 ? -1 : span.global + i);
    }
  }
  return columns;
}

}  // namespace autosp
