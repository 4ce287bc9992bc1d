// Proves of a program, for all ranks at once and without running it, that it computes what the
// one-device program computes. Trusts nothing that the passes and the lowering did, and shares no
// code with them: a plan that they got wrong is refused before it trains anything.
//
// docs/checker.md says what is proved, what is trusted, and where the limits are.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/program/program.h"

namespace autosp {

// Errors name the instruction, its place in the user's model, and the rule. FailedPrecondition: the
// program breaks it. Unimplemented: "not proven", an op that the checker does not know is split.
//
// Lifetimes, memory, placement, padding, and that all ranks issue the same collectives. The last
// follows from the form of a program: the list is the same for every rank, the only control is a
// loop with a constant count, and a collective has groups spanned by axes of the mesh and equal
// sizes on all members, which is what is checked.
absl::Status CheckProgram(const Program& program);

struct Proof {
  int64_t num_values = 0;       // placed, and given a meaning
  int64_t num_collectives = 0;  // instructions that communicate
  int64_t num_results = 0;      // outputs, parameters and states, equal to the one-device program's
};

// CheckProgram, and: every output, and what every parameter and state holds in the end, is the same
// function of the same inputs as in `one_device`, a program of the same job for one rank and one
// micro-step. Equal as real functions: sums may be taken in another order.
absl::StatusOr<Proof> CheckEquivalent(const Program& program, const Program& one_device);

}  // namespace autosp
