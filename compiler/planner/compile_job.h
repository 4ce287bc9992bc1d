// From a job and a cluster to a plan: import, passes, lowering, prediction, and the choice of a
// mesh. prepared_job.h has the part that all meshes share.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "compiler/checker/check_program.h"
#include "compiler/config/cluster_spec.h"
#include "compiler/config/job_spec.h"
#include "compiler/import/pt2_archive.h"
#include "compiler/planner/plan.h"
#include "compiler/planner/prepared_job.h"

namespace autosp {

// Reads the archive that the job names, and the headers of its weights. Same job, same files, same
// cluster: same bytes. Errors name the key of the job file, or the place in the user's model, and
// what to do. Internal: the checker refuses the plan (compiler/checker), which no job can be the
// cause of.
absl::StatusOr<CompiledPlan> CompileJob(const JobSpec& job, const ClusterSpec& cluster);

// The same, but weights that are nowhere are a warning: what fits can be asked before they are
// there.
absl::StatusOr<CompiledPlan> PlanJob(const JobSpec& job, const ClusterSpec& cluster);

// The same for a model that was imported before.
absl::StatusOr<CompiledPlan> CompileModel(const ImportedModel& model, const JobSpec& job,
                                          const ClusterSpec& cluster);

// Holds the text that ranks will run against the program for one rank. Nothing that a user wrote
// can make this fail: it is the last line of defence against a mistake in the passes and the
// lowering. Unimplemented: the checker has no table for something, and neither proves nor
// disproves. Internal: it is disproved.
absl::StatusOr<Proof> ProvePlan(const std::string& program_text, const Program& one_device);

}  // namespace autosp
