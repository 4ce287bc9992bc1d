// Which mesh, micro-batch and recomputation a job gets.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/analysis/simulate.h"
#include "compiler/config/cluster_spec.h"
#include "compiler/config/job_spec.h"
#include "compiler/lowering/lower_program.h"
#include "compiler/planner/prepared_job.h"

namespace autosp {

// A program that was lowered, and what it needs.
struct Candidate {
  Mesh mesh;
  MemoryChoice memory;
  LoweredProgram lowered;
  SectionPrediction prediction;
  int64_t peak_bytes = 0;  // of device memory and exchanges, per rank
};

// Meshes are tried by the time that ranks wait for exchanges, those that split every attention
// first. The first that fits into the budget is taken, with the least that has to be given up for
// memory, since that costs time, and then with the fewest micro-steps, which cost less. On GPUs,
// where attention would be made again, what it gave goes to the host instead if that is estimated
// to be faster. Error: none fits; it names the smallest and what it lacks.
absl::StatusOr<Candidate> ChoosePlan(const PreparedJob& prepared, const JobSpec& job,
                                     const ClusterSpec& cluster, const std::vector<Mesh>& meshes);

}  // namespace autosp
