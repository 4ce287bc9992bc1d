// A group of ranks that communicate with each other: usually those along some axes of the mesh.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compiler/program/mesh.h"

namespace autosp {

struct ProcessGroup {
  // For messages and names of shared memory: "dp+ulysses:0". Unique among the groups of a job.
  std::string name;
  // Global ranks in group order. A rank's place here is its index in every buffer.
  std::vector<int64_t> ranks;

  int size() const { return static_cast<int>(ranks.size()); }
  // -1 when `global_rank` is not a member.
  int IndexOf(int64_t global_rank) const;
  friend bool operator==(const ProcessGroup&, const ProcessGroup&) = default;
};

// The group along `axes` that holds `global_rank`. Its name is the axes and its first member:
// "ulysses:2" is the ulysses group of ranks 2, 3.
ProcessGroup MeshGroup(const Mesh& mesh, const AxisList& axes, int64_t global_rank);

// Every non-empty set of device axes, in an order that is the same on all ranks. Ranks that open
// their groups in this order never wait for each other in a circle.
std::vector<AxisList> DeviceAxisSets();

}  // namespace autosp
