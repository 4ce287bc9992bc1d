// What additions to a wider type allocate on CPUs: one definition for the planner that predicts it
// and for autosp.matmul_accumulate_.
#pragma once

#include <cstdint>

#include "compiler/program/program.h"

namespace autosp {

// No kernel of CPUs multiplies half types into a sum in fp32. So many rows of both operands,
// [T, out] and [T, in], are converted at a time; GPUs take them as they are.
inline constexpr int64_t kConvertedRows = 512;

// Whether an instruction adds to what may be of a wider type, so that CPUs convert the addend.
inline bool AddsInPlace(const Instruction& instruction) {
  return instruction.kind == InstructionKind::kAccumulate ||
         instruction.op == "autosp.matmul_accumulate_";
}

}  // namespace autosp
