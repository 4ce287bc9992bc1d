// Recomputes in the backward what is cheaper to make again than to keep.
#pragma once

#include <vector>

#include "compiler/program/program.h"

namespace autosp {

// A product, sum or cast of values that the backward keeps anyway is freed after the forward and
// made again at its first use in the backward: one pass over memory buys its whole size back.
//
//   before  forward   %p = call aten.mul.Tensor(%silu, %up)           %silu, %up, %p kept
//           backward  update autosp.matmul_accumulate_(%gw, %g, %p)
//   after   forward   %p = call aten.mul.Tensor(%silu, %up)           %silu, %up kept
//           backward  %p2 = call aten.mul.Tensor(%silu, %up)
//                     update autosp.matmul_accumulate_(%gw, %g, %p2)
//
// The bits are the same: the same op on the same operands. Chains (x * rsqrt, then times a weight)
// are made again as chains. Requires: frees are not inserted yet.
void RecomputeCheap(Program& program, const std::vector<Instruction>& forward,
                    std::vector<Instruction>& backward);

}  // namespace autosp
