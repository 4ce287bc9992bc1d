#include "compiler/planner/first_proved.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace autosp {
namespace {

constexpr size_t kMaxMeshes = 4;

std::string Text(const Mesh& mesh) {
  return absl::StrCat("dp ", mesh.dp, " x ring ", mesh.ring, " x ulysses ", mesh.ulysses);
}

}  // namespace

absl::StatusOr<CompiledPlan> FirstProved(std::vector<Mesh> meshes, BestPlan best) {
  absl::Status first;
  std::vector<std::string> warnings;
  while (warnings.size() < kMaxMeshes && !meshes.empty()) {
    absl::StatusOr<CheckedPlan> checked = best(meshes);
    if (!checked.ok()) return first.ok() ? checked.status() : first;
    if (checked->verdict.ok()) {
      std::vector<std::string>& all = checked->plan.summary.warnings;
      all.insert(all.end(), warnings.begin(), warnings.end());
      return std::move(checked->plan);
    }
    warnings.push_back(absl::StrCat("the best mesh would be ", Text(checked->mesh),
                                    ", which is left out: ", checked->verdict.message()));
    if (first.ok()) first = checked->verdict;
    // A mesh that is not among them would be chosen for ever.
    if (std::erase(meshes, checked->mesh) == 0) break;
  }
  return first;
}

}  // namespace autosp
