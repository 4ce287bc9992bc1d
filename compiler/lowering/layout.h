// How results lie in memory: the stride rules of ATen, on plain numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace autosp {

using Sizes = std::vector<int64_t>;
using Strides = std::vector<int64_t>;  // elements

struct StridedShape {
  Sizes sizes;
  Strides strides;
};

// Strides of a dense result of an elementwise op: the order of dimensions in memory follows the
// operands, first operand first (the algorithm of TensorIterator::reorder_dimensions).
Strides ElementwiseStrides(const Sizes& sizes, const std::vector<StridedShape>& operands);

// Strides that show the same elements in order under other sizes; nullopt where only a copy can
// (the algorithm of at::detail::computeStride).
std::optional<Strides> ViewStrides(const StridedShape& from, const Sizes& sizes);

// Whether the elements lie in order without gaps. Dimensions of size 1 have any stride.
bool IsContiguous(const StridedShape& shape);

}  // namespace autosp
