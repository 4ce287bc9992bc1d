// What planning works out once for a job, whatever the mesh: the model's graph at the job's sizes.
// Each mesh is lowered from it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/config/job_spec.h"
#include "compiler/import/pt2_archive.h"
#include "compiler/lowering/lower_program.h"
#include "compiler/passes/pass.h"
#include "compiler/rules/infer_factors.h"

namespace autosp {

// What the dimensions of the user inputs are. Error: the data does not feed an input.
absl::StatusOr<InputRoles> RolesOf(const Graph& graph, const JobSpec& job);

struct PreparedJob {
  Graph graph;           // after all passes that do not read the mesh
  GraphFactors factors;  // of `graph`
  PassContext context;
  LoweringOptions options;            // of one rank
  std::vector<std::string> warnings;  // about the user's model
};

// Errors name the key of the job file, or the place in the user's model, and what to do.
absl::StatusOr<PreparedJob> PrepareJob(const ImportedModel& model, const JobSpec& job);

// The program of one mesh, without choosing. `mesh.accum` follows from the batch sizes.
absl::StatusOr<LoweredProgram> LowerForMesh(const PreparedJob& prepared, const Mesh& mesh,
                                            const MemoryChoice& memory = {});

// As the job has it.
MemoryChoice ChoiceOf(const JobSpec& job);

// Both, for a single mesh; what is given up for memory as the job has it, where auto is none.
absl::StatusOr<LoweredProgram> CompileForMesh(const ImportedModel& model, const JobSpec& job,
                                              const Mesh& mesh, std::vector<std::string>* warnings);

}  // namespace autosp
