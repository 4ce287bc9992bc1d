#include "compiler/lowering/layout.h"

#include <algorithm>
#include <numeric>

#include "compiler/ir/graph.h"

namespace autosp {
namespace {

// > 0: dimension `a` lies outside `b` and should come later; < 0: the order is right; 0: unknown.
int CompareDims(size_t a, size_t b, const Sizes& sizes, const std::vector<StridedShape>& operands) {
  for (const StridedShape& operand : operands) {
    const size_t missing = sizes.size() - operand.sizes.size();
    const auto stride = [&](size_t dim) -> int64_t {
      // A stretched dimension says nothing; one of size 1 in the result too has its own stride.
      if (dim < missing || (operand.sizes[dim - missing] == 1 && sizes[dim] != 1)) return 0;
      return operand.strides[dim - missing];
    };
    const int64_t stride_a = stride(a);
    const int64_t stride_b = stride(b);
    if (stride_a == 0 || stride_b == 0) continue;
    if (stride_a != stride_b) return stride_a < stride_b ? -1 : 1;
    if (sizes[a] > sizes[b]) return 1;
  }
  return 0;
}

}  // namespace

Strides ElementwiseStrides(const Sizes& sizes, const std::vector<StridedShape>& operands) {
  const size_t rank = sizes.size();
  std::vector<size_t> order(rank);  // innermost first
  std::iota(order.rbegin(), order.rend(), 0);
  for (size_t i = 1; i < rank; ++i) {
    size_t place = i;
    for (size_t j = i; j-- > 0;) {
      const int comparison = CompareDims(order[j], order[place], sizes, operands);
      if (comparison > 0) {
        std::swap(order[j], order[place]);
        place = j;
      } else if (comparison < 0) {
        break;
      }
    }
  }
  Strides strides(rank);
  int64_t next = 1;
  for (size_t dim : order) {
    strides[dim] = next;
    next *= std::max<int64_t>(sizes[dim], 1);
  }
  return strides;
}

std::optional<Strides> ViewStrides(const StridedShape& from, const Sizes& sizes) {
  Strides result(sizes.size());
  int64_t view_dim = static_cast<int64_t>(sizes.size()) - 1;
  const auto rank = static_cast<int64_t>(from.sizes.size());
  if (rank == 0) {
    std::ranges::fill(result, 1);
    return result;
  }
  int64_t chunk_stride = from.strides.back();
  int64_t chunk_numel = 1;
  int64_t view_numel = 1;
  for (int64_t dim = rank - 1; dim >= 0; --dim) {
    chunk_numel *= from.sizes[dim];
    const bool chunk_ends = dim == 0 || (from.sizes[dim - 1] != 1 &&
                                         from.strides[dim - 1] != chunk_numel * chunk_stride);
    if (!chunk_ends) continue;
    while (view_dim >= 0 && (view_numel < chunk_numel || sizes[view_dim] == 1)) {
      result[view_dim] = view_numel * chunk_stride;
      view_numel *= sizes[view_dim];
      --view_dim;
    }
    if (view_numel != chunk_numel) return std::nullopt;
    if (dim > 0) {
      chunk_stride = from.strides[dim - 1];
      chunk_numel = 1;
      view_numel = 1;
    }
  }
  if (view_dim != -1) return std::nullopt;
  return result;
}

bool IsContiguous(const StridedShape& shape) {
  int64_t expected = 1;
  for (size_t i = shape.sizes.size(); i-- > 0;) {
    if (shape.sizes[i] == 1) continue;
    if (shape.strides[i] != expected) return false;
    expected *= shape.sizes[i];
  }
  return true;
}

}  // namespace autosp
