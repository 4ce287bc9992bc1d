// Recomputes whole segments of the forward in the backward: activation checkpointing.
#pragma once

#include <vector>

#include "compiler/config/job_spec.h"
#include "compiler/program/program.h"

namespace autosp {

// The forward is cut into segments, and what the forward reads across a cut is kept: the inputs of
// layers, mostly. Of a segment's other values, those that its backward reads are freed after the
// forward and made again there, each just before its first use, from what is kept.
//
//   full       everything, attention and its exchanges too
//   selective  all but attention: what it and every collective gave is kept as well. At long
//              sequences attention is nearly all of the work, and token-local values nearly all of
//              the memory (sequence-aware activation checkpointing, SAC).
//   none       nothing
//
// Cuts are those that keep the fewest bytes, where the largest segment counts too, since it is
// whole again for a moment (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", with
// sizes instead of a fixed number of layers):
//
//   minimise  sum over cuts of the bytes kept there first  +  the most bytes made again at once
//
// Of bytes that wait on the host only a part counts, `kept_weight`: segments are as short as one
// layer then.
//
// The bits are the same: the same ops on the same operands. A collective that is made again moves
// its bytes again, in the phase `backward`. Requires: `backward` is the backward of `forward`, and
// frees are not inserted yet.
void RecomputeSegments(Program& program, Recompute recompute, double kept_weight,
                       std::vector<Instruction>& forward, std::vector<Instruction>& backward);

}  // namespace autosp
