// What of a program's values a checkpoint has, and which rank writes which part.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/manifest.h"
#include "compiler/program/program.h"

namespace autosp {

// The values that one step leaves to the next: parameters, states of the optimizer, and buffers
// that the step writes. Not among them are buffers that nothing writes; scalars, which the host
// sets before each step; and states that a step begins by zeroing.
std::vector<const Persistent*> CarriedValues(const Program& program);

// The carried values by name, cut into one part for each of `num_files` ranks. What every rank
// holds is written in equal parts of the bytes: the tensors' rows, one after another, are cut into
// runs of about the same size. Of what is split over ranks, each writes what it holds. Depends on
// nothing but the program and the number.
//
// INVALID_ARGUMENT for a value that is split over ranks, and another number of files than ranks.
absl::StatusOr<std::vector<ManifestTensor>> LayOutCheckpoint(const Program& program,
                                                             int64_t num_files);

}  // namespace autosp
