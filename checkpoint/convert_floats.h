// Numbers of one floating type as those of another.
#pragma once

#include <cstddef>

#include "absl/types/span.h"
#include "compiler/ir/dtype.h"

namespace autosp {

// Converts little endian elements to the nearest number, ties to even, as PyTorch does; what is
// past the largest becomes infinite, and f64 goes through f32. Requires: both types are floating,
// and `out` has room for as many elements as there are in `in`. Neither need be aligned.
void ConvertFloats(DType from, absl::Span<const std::byte> in, DType to, absl::Span<std::byte> out);

}  // namespace autosp
