// ZeRO's third stage: parameters are kept in parts, and are whole only while they are used.
#pragma once

#include <map>

#include "compiler/lowering/program_builder.h"
#include "compiler/lowering/zero_shard.h"

namespace autosp {

// By persistent: how a parameter is split.
using SplitParameters = std::map<ValueId, ZeroShard>;

// Gathers each parameter before its uses in a section, in the forward and again in the backward;
// what is gathered is freed after its last use, as any value.
//
//   before  %y = call aten.linear.default(%x, %w)            %w : f32[64, 64]
//   after   %c = start all_gather(%w) {axes="ulysses", dim=[0]} : f32[64, 64]; wait(%c)
//           %y = call aten.linear.default(%x, %c)            %w : f32[64@ulysses, 64]
//
// A matrix that is used again only after another one (tied weights) is gathered again; vectors, as
// those of norms, stay between their uses in a phase. The optimizer reads the parts.
//
// Requires: parameters have still their whole dims, frees are not inserted yet.
void GatherParameters(ProgramBuilder& builder, const SplitParameters& parameters,
                      std::vector<Instruction>& body);

// Gives the parameters the dims of their parts, when all sections are done.
void SplitPersistents(Program& program, const SplitParameters& parameters);

}  // namespace autosp
