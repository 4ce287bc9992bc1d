#include "worker/collectives/process_group.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace autosp {

int ProcessGroup::IndexOf(int64_t global_rank) const {
  const auto it = std::find(ranks.begin(), ranks.end(), global_rank);
  return it == ranks.end() ? -1 : static_cast<int>(it - ranks.begin());
}

ProcessGroup MeshGroup(const Mesh& mesh, const AxisList& axes, int64_t global_rank) {
  ProcessGroup group;
  group.ranks = GroupOf(mesh, axes, global_rank);
  group.name = absl::StrCat(AxisListName(axes), ":", group.ranks.front());
  return group;
}

std::vector<AxisList> DeviceAxisSets() {
  std::vector<AxisList> sets;
  for (unsigned bits = 1; bits < (1u << kDeviceAxes.size()); ++bits) {
    AxisList axes;
    for (size_t i = 0; i < kDeviceAxes.size(); ++i) {
      if (bits & (1u << i)) axes.push_back(kDeviceAxes[i]);
    }
    sets.push_back(axes);
  }
  return sets;
}

}  // namespace autosp
