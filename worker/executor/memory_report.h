// Words for errors: which instruction, and what filled the memory.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "worker/executor/environment.h"
#include "worker/executor/step.h"

namespace autosp {

// "%y = call aten.silu.default(%x) [model.layers.3.mlp at llama.py:91]"
std::string DescribeInstruction(const Program& program, const Instruction& instruction);

// RESOURCE_EXHAUSTED if an account of the rank has refused an allocation since the last call: bytes
// wanted, live and allowed, and the largest live values with where they come from. Else ok.
absl::Status DescribeOutOfMemory(const Program& program, ExecutorEnvironment& environment,
                                 const RunState& state);

}  // namespace autosp
