// The layout of what attention gives on GPUs.
#pragma once

#include <cstdint>
#include <vector>

#include "compiler/program/program.h"

namespace autosp {

// Kernels of GPUs write the output of attention as [B, S, N, H] in memory, where lowering asks for
// [B, N, S, H], as CPUs write it, and then brings it into the other order for the projection:
//
//   %o = call autosp.sdpa(..)  : [B, N, S, H]                    {strides= S, N swapped}
//   %p = alias permute(%o, 0 2 1 3)                       =>     the same, contiguous
//   %c = copy(%p)                                                %c = alias(%p)
//
// Two passes over the output and one buffer of its size less, and the derivative reads %o in the
// order that its kernels want. Only where nothing else reads the output but the derivative; what a
// rank's own kernel writes in another order, its executor brings into this one.
void LayOutputsByTokens(Program& program);

// Of [B, N, S, H] that lies as [B, S, N, H].
std::vector<int64_t> StridesByTokens(const std::vector<int64_t>& sizes);

}  // namespace autosp
