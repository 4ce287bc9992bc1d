// ZeRO's gradients: each rank keeps the sum of its part alone.
#pragma once

#include <utility>
#include <vector>

#include "compiler/lowering/program_builder.h"
#include "compiler/lowering/zero_shard.h"

namespace autosp {

// The accumulators that are split. Lowering adds to them as if they were whole; one of the two
// functions below then gives the sums a memory of their own and makes the accumulators parts.
using SplitGradients = std::vector<std::pair<ValueId, ZeroShard>>;

// Stage 2 and 3: a gradient is whole only within the backward of its own uses. One that is added in
// one piece is scattered as it is.
//
//   before  update autosp.matmul_accumulate_(%gw, %dy, %x)
//   after   %t = call aten.zeros.default(...) : f32[64, 64], partial over all axes
//           update autosp.matmul_accumulate_(%t, %dy, %x)
//           %s = start reduce_scatter(%t) {axes="ulysses", dim=[0], reduction="sum"}; wait(%s)
//           accumulate(%gw, %s)                      %gw : f32[64@ulysses, 64]
//
// `body`: forward and backward of one micro-step.
void ScatterGradients(ProgramBuilder& builder, const SplitGradients& gradients,
                      std::vector<Instruction>& body);

// Stage 1: the sums of all micro-steps are whole, and are scattered once. Appends what comes before
// the micro-steps to `before`, what comes after them to `after`.
void ScatterSums(ProgramBuilder& builder, const SplitGradients& gradients,
                 std::vector<Instruction>& body, std::vector<Instruction>* before,
                 std::vector<Instruction>* after);

}  // namespace autosp
