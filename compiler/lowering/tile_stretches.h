// Runs what lies between two attentions a part of the sequence at a time.
#pragma once

#include <vector>

#include "compiler/lowering/backward_lowering.h"
#include "compiler/lowering/program_builder.h"

namespace autosp {

// Between two attentions every token goes its own way: norms, products, an MLP several times as
// wide as what enters it. Here the values in between exist for one tile of the rank's sequence at a
// time, forward and backward:
//
//   forward    for tile { h = norm(x_t); gate, up = h W; y_t += silu(gate) * up W }
//   backward   for tile { h, gate, up again; ...; dx_t += ... }
//
// The forward of a region is made again in the backward, as recomputation would; nothing inside it
// is kept. A region is what is connected with a product by values that are made and read within one
// stretch: between instructions that need more than one token, and without what is handed on past
// the next of them (the residual stream, which thereby separates a block's MLP from the next one's
// queries, keys and values).
//
// Requires: the program's mesh has its number of tiles (TileLoss), or none: then one is chosen for
// the first region. As TileLoss, `adjoints` has a range in `backward` for each instruction of
// `forward`. Returns the number of regions.
int64_t TileStretches(ProgramBuilder& builder, const std::vector<AdjointRange>& adjoints,
                      std::vector<Instruction>& forward, std::vector<Instruction>& backward);

}  // namespace autosp
