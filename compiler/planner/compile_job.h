// From a job and a cluster to a plan: import, passes, lowering, prediction, and the choice of a
// mesh.
#pragma once

#include "absl/status/statusor.h"
#include "compiler/config/cluster_spec.h"
#include "compiler/config/job_spec.h"
#include "compiler/import/pt2_archive.h"
#include "compiler/lowering/lower_program.h"
#include "compiler/planner/plan.h"
#include "compiler/program/mesh.h"
#include "compiler/rules/infer_factors.h"

namespace autosp {

// Reads the archive that the job names, and the headers of its weights. Same job, same files, same
// cluster: same bytes. Errors name the key of the job file, or the place in the user's model, and
// what to do. Internal: the checker refuses the plan (compiler/checker), which no job can be the
// cause of.
absl::StatusOr<CompiledPlan> CompileJob(const JobSpec& job, const ClusterSpec& cluster);

// The same for a model that was imported before.
absl::StatusOr<CompiledPlan> CompileModel(const ImportedModel& model, const JobSpec& job,
                                          const ClusterSpec& cluster);

// What the dimensions of the user inputs are. Error: the data does not feed an input.
absl::StatusOr<InputRoles> RolesOf(const Graph& graph, const JobSpec& job);

// The model's graph at the job's sizes, after all graph passes; heads for so many ranks.
absl::StatusOr<Graph> PrepareGraph(const ImportedModel& model, const JobSpec& job,
                                   int64_t head_shards);

// The program of one mesh, without choosing. `mesh.accum` follows from the batch sizes.
absl::StatusOr<LoweredProgram> CompileForMesh(const ImportedModel& model, const JobSpec& job,
                                              const Mesh& mesh, std::vector<std::string>* warnings);

}  // namespace autosp
