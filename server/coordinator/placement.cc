#include "server/coordinator/placement.h"

#include <algorithm>

namespace autosp {
namespace {

void TakeDevices(const NodeDevices& node, int64_t world_size, std::vector<RankPart>& ranks) {
  int64_t local_rank = 0;
  for (int64_t device_index : node.free) {
    if (static_cast<int64_t>(ranks.size()) == world_size) return;
    ranks.push_back({.node = node.node, .local_rank = local_rank++, .device_index = device_index});
  }
}

}  // namespace

std::optional<std::vector<RankPart>> PlaceRanks(int64_t world_size, const std::string& device_kind,
                                                const std::vector<NodeDevices>& nodes) {
  std::vector<const NodeDevices*> usable;
  int64_t num_free = 0;
  for (const NodeDevices& node : nodes) {
    if (node.device_kind != device_kind || node.free.empty()) continue;
    usable.push_back(&node);
    num_free += static_cast<int64_t>(node.free.size());
  }
  if (num_free < world_size) return std::nullopt;

  // Stable, so that equal nodes are taken in the order of their names.
  std::ranges::stable_sort(usable, {}, [](const NodeDevices* n) { return n->free.size(); });
  std::vector<RankPart> ranks;
  auto whole = std::ranges::find_if(usable, [&](const NodeDevices* n) {
    return static_cast<int64_t>(n->free.size()) >= world_size;
  });
  if (whole != usable.end()) {
    TakeDevices(**whole, world_size, ranks);
    return ranks;
  }
  // The emptiest nodes first: as few nodes as possible.
  std::ranges::stable_sort(usable, std::ranges::greater(),
                           [](const NodeDevices* n) { return n->free.size(); });
  for (const NodeDevices* node : usable) TakeDevices(*node, world_size, ranks);
  return ranks;
}

}  // namespace autosp
