// Runs the head of the model and the loss a part of the sequence at a time: logits are never whole.
#pragma once

#include <vector>

#include "compiler/lowering/backward_lowering.h"
#include "compiler/lowering/program_builder.h"

namespace autosp {

// The logits of a long sequence are the largest value of most models, and their gradient is as
// large. Nothing but the loss reads them, and its gradient is known before the forward is done. So
// the product that makes them, the loss, and the backward of both move into one loop over tiles of
// the rank's sequence, at no cost in work:
//
//   %dx = call aten.zeros.default(...) : f32[batch, seq@ulysses, 64]
//   for tile 8 {
//     %x_t = alias aten.slice.Tensor(%x, 1, 0, 4, 1)
//                : f32[batch, seq@ulysses+tile, 64]{strides=2048,64,1 offset=0+256*tile}
//     %logits = call aten.linear.default(%x_t, %w, none) : f32[batch, seq@ulysses+tile, 256]
//     ...
//     accumulate(%loss_sum, %loss)             partial sums over tile: the loop adds them up
//     update autosp.cross_entropy_backward_(%logits, ...)
//     update autosp.matmul_accumulate_(%grad_w, ...)
//     accumulate(%dx_t, ...)                   %dx_t: a view of %dx like %x_t
//   }
//
// `tile` is an axis of the mesh that runs in time, as accum is. It must divide the tokens of a
// rank. `tiles` 0: so many that the logits of a tile are no larger than what they are made from, or
// the next divisor, or none where that is more than twice as many. Else `tiles`, which loops of
// another section run over already, or none.
//
// Where the loss is no cross entropy, or something else reads the logits, all stays as it is.
// `adjoints` has a range for each instruction of `forward`, and is kept true; empty where there is
// no backward.
// `backward` may begin with what reads the loss. Returns the number of tiles, 1 for none; sets it
// in the program's mesh.
int64_t TileLoss(ProgramBuilder& builder, int64_t tiles, std::vector<AdjointRange>& adjoints,
                 std::vector<Instruction>& forward, std::vector<Instruction>& backward);

}  // namespace autosp
