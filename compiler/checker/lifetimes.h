// Lives of values, in order of the list: defined once, used after that, freed once, and collectives
// waited for once.
#pragma once

#include "absl/status/status.h"
#include "compiler/program/program.h"

namespace autosp::checker {

// Also: between the start and the wait of a collective nothing reads its result, and nothing writes
// to its operand, which may be freed: the collective holds what it reads. Both are in one run of a
// body. What a body defines it frees; what is kept is never freed.
absl::Status CheckLifetimes(const Program& program);

}  // namespace autosp::checker
