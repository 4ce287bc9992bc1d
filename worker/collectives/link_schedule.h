// What one member of a group sends to one other, where members run on several nodes.
//
// What is for all (the blocks of an all_gather, the results of an all_reduce, a broadcast) crosses
// to each other node once: to one member there, the relay, which passes it on to the members of its
// own node. Which one that is differs by source, so that all take part. Everything else goes
// directly.
//
// A link's chunks are ordered by the steps of chunk_schedule.h, a rank's own before what it relays.
// A chunk of a step waits for chunks of earlier steps, and a relayed one for the same chunk on the
// way to the relay, which is never relayed itself. So no circle of ranks can wait for each other.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/collectives/chunk_schedule.h"
#include "worker/collectives/collectives.h"

namespace autosp {

// Nodes of the members of a group, by index in the group: equal numbers are equal nodes.
using GroupPlacement = std::vector<int>;

struct LinkChunk {
  Chunk chunk;
  int origin = 0;  // whose chunk it is; not the sender: relayed
};

// In the order in which `from` sends them to `to`, and `to` receives them.
std::vector<LinkChunk> ChunksOnLink(const CollectiveCall& call, const GroupPlacement& placement,
                                    int64_t chunk_bytes, int from, int to);

}  // namespace autosp
