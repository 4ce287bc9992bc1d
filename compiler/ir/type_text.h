// The text of tensor types: `f32[2, 32{s38}, 64]`, with `{strides=2048,64,1}` behind it where the
// value is not contiguous.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "compiler/ir/graph.h"
#include "compiler/ir/text_cursor.h"

namespace autosp {

std::string PrintTensorType(const TensorType& type);
absl::StatusOr<TensorType> ParseTensorType(TextCursor& cursor);

// True if a contiguous tensor of these sizes has a size in bytes that fits 64 bits. Sizes of 0
// count as 1, as in ContiguousStrides.
bool FitsMemory(DType dtype, const std::vector<int64_t>& sizes);

// The exported sizes, without their expressions.
std::vector<int64_t> SizeValues(const TensorType& type);

}  // namespace autosp
