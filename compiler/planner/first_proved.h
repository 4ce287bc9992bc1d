// The next best plan where the checker refuses the best.
#pragma once

#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/planner/plan.h"
#include "compiler/program/mesh.h"

namespace autosp {

// The best plan of some meshes, and what the checker says of it.
struct CheckedPlan {
  Mesh mesh;  // without micro-steps: accum 1
  CompiledPlan plan;
  absl::Status verdict;
};

using BestPlan = absl::FunctionRef<absl::StatusOr<CheckedPlan>(const std::vector<Mesh>&)>;

// What the checker refuses is a fault of the compiler, and mostly one of a way to split: on other
// meshes the same model may be planned right, if slower. The plan that is returned has a warning
// for each mesh that was refused before it. At most four meshes are tried, since each costs a whole
// compilation. Errors: those of `best` for all meshes, and the first verdict where no other mesh
// has a plan.
absl::StatusOr<CompiledPlan> FirstProved(std::vector<Mesh> meshes, BestPlan best);

}  // namespace autosp
