// What libtorch leaves out when it refuses a place that is not there.
#pragma once

#include "absl/status/status.h"
#include "compiler/program/program.h"
#include "worker/executor/step.h"

namespace autosp {

// Of an instruction that has failed: if it looks up a place that its table does not have, an error
// that names it and the table; else ok. Nothing is read back from a GPU, which is lost by then.
absl::Status DescribeLookUp(const Program& program, const Instruction& instruction,
                            const RunState& state);

}  // namespace autosp
