// From a job and a cluster to a plan: import, passes, lowering, prediction, and the choice of a
// mesh. prepared_job.h has the part that all meshes share.
#pragma once

#include "absl/status/statusor.h"
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

// The same for a model that was imported before.
absl::StatusOr<CompiledPlan> CompileModel(const ImportedModel& model, const JobSpec& job,
                                          const ClusterSpec& cluster);

}  // namespace autosp
