// Runs what is wide between two narrow values a part of the sequence at a time.
#pragma once

#include <vector>

#include "compiler/lowering/tile_loss.h"

namespace autosp {

// An MLP makes values several times as wide as its input and its result. Here they exist for one
// tile of the rank's sequence at a time, forward and backward:
//
//   forward    for tile { gate, up = x_t W; h = silu(gate) * up; y_t += h W }
//   backward   for tile { gate, up, h again; dh = dy_t W^T; ...; dx_t += ... }
//
// The forward of the region is made again in the backward, as recomputation would; nothing of it is
// kept. A region is all that is connected by values at least twice as wide as what they are made
// from, where it gives the same on a part of the tokens (TokenRegion): attention between wide
// values is none. Requires: the program's mesh has its number of tiles (TileLoss), or none: then as
// many are made as leave the widest value no wider than its input. As TileLoss, `adjoints` has a
// range in `backward` for each instruction of `forward`. Returns the number of regions.
int64_t TileMlps(ProgramBuilder& builder, const std::vector<AdjointRange>& adjoints,
                 std::vector<Instruction>& forward, std::vector<Instruction>& backward);

}  // namespace autosp
