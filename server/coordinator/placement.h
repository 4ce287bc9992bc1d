// Which devices a job gets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/ids.h"
#include "server/coordinator/job.h"

namespace autosp {

struct NodeDevices {
  NodeId node;
  std::string device_kind;
  int64_t num_devices = 0;
  std::vector<int64_t> free;  // indices, ascending
};

// One place per rank, ranks of a node side by side, or nothing when the free devices of the kind do
// not suffice. One node is better than several, since collectives inside a node are cheaper; among
// nodes that can take the whole job, the fullest, so that large gaps stay large.
std::optional<std::vector<RankPart>> PlaceRanks(int64_t world_size, const std::string& device_kind,
                                                const std::vector<NodeDevices>& nodes);

}  // namespace autosp
