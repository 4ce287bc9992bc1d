// Elementwise reduction over the buffers of several ranks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "compiler/ir/dtype.h"
#include "worker/collectives/collectives.h"

namespace autosp {

// output[i] = sources[0][i] op sources[1][i] op ..., from left to right. bf16 and f16 are
// accumulated in fp32 and rounded once, to nearest even. bool sums are "or". A NaN in any source
// gives NaN, for kMax too. `output` may be one of the sources. Buffers need not be aligned.
void Reduce(DType dtype, ReduceOp op, absl::Span<const std::byte* const> sources, std::byte* output,
            int64_t num_elements);

}  // namespace autosp
