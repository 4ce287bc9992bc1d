// The tokens at the borders of shards, for ops in which a token depends on its neighbours.
//
//   %e = call autosp.shard_edges(%x, dim, before, after) : f32[4, 24@ulysses, 16]
//   %g = start all_gather(%e) {axes="ulysses", dim=[1]} : f32[4, 24, 16]
//
// Of each stretch of consecutive tokens that a rank holds (one, or two of a zigzag layout) these
// are the last `before` and the first `after` tokens: what the stretches behind it and in front of
// it lack. Gathered, they are those of all ranks, whatever the length of the sequence.
#pragma once

#include <cstdint>

#include "compiler/lowering/program_builder.h"

namespace autosp {

// Appends both; None where the tokens are whole, or nothing is looked at but the token itself.
// Requires: a stretch has as many tokens.
Argument GatherEdges(ProgramBuilder& builder, ValueId tokens, int64_t dim, int64_t before,
                     int64_t after);

// What kernels allocate beside their results for `tokens` with their neighbours, `window` of them:
// a copy of these, a stretch at a time, and where there are several what the result is put together
// from. A convolution of ATen makes its result twice.
int64_t ShiftWorkspaceBytes(const Program& program, ValueId tokens, int64_t dim, int64_t window,
                            ValueId result);
int64_t ConvWorkspaceBytes(const Program& program, ValueId tokens, int64_t window, ValueId result);
// The same for the gradient of a weight: tokens, gradients of their results, and a product of both
// or, where channels are not apart, what ATen copies: the tokens once more, and gradients twice.
int64_t WeightGradWorkspaceBytes(const Program& program, ValueId tokens, int64_t window,
                                 ValueId grad, ValueId weight);

}  // namespace autosp
