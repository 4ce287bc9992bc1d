#include "worker/collectives/link_schedule.h"

#include <algorithm>

namespace autosp {
namespace {

// A barrier has no bytes to save, and is to be quick.
bool IsRelayed(const CollectiveCall& call, const Chunk& chunk) {
  return chunk.destination == kToAllRanks && call.kind != CollectiveKind::kBarrier;
}

// The member on `node` that gets from `source` what is for all of them.
int RelayOn(const GroupPlacement& placement, int node, int source) {
  std::vector<int> members;
  int place_of_source = 0;  // among the members of its own node
  for (int member = 0; member < static_cast<int>(placement.size()); ++member) {
    if (placement[member] == node) members.push_back(member);
    if (member < source && placement[member] == placement[source]) ++place_of_source;
  }
  return members[place_of_source % members.size()];
}

int64_t StepOf(const CollectiveCall& call, const Chunk& chunk) {
  const bool is_result =
      call.kind == CollectiveKind::kAllReduce && chunk.destination == kToAllRanks;
  return chunk.piece + (is_result ? kResultLag : 0);
}

}  // namespace

std::vector<LinkChunk> ChunksOnLink(const CollectiveCall& call, const GroupPlacement& placement,
                                    int64_t chunk_bytes, int from, int to) {
  const int size = static_cast<int>(placement.size());
  const bool is_within_node = placement[from] == placement[to];
  const bool is_direct = is_within_node || RelayOn(placement, placement[to], from) == to;
  std::vector<LinkChunk> chunks;
  for (const Chunk& chunk : ChunksFor(ChunksSentBy(call, size, chunk_bytes, from), to)) {
    if (is_direct || !IsRelayed(call, chunk)) chunks.push_back({.chunk = chunk, .origin = from});
  }
  for (int origin = 0; origin < size && is_within_node; ++origin) {
    const bool is_relay =
        placement[origin] != placement[from] && RelayOn(placement, placement[from], origin) == from;
    if (!is_relay) continue;
    for (const Chunk& chunk : ChunksSentBy(call, size, chunk_bytes, origin)) {
      if (IsRelayed(call, chunk)) chunks.push_back({.chunk = chunk, .origin = origin});
    }
  }
  // Stable: within a step the own chunks stay before what is relayed.
  std::ranges::stable_sort(chunks, {},
                           [&](const LinkChunk& each) { return StepOf(call, each.chunk); });
  return chunks;
}

}  // namespace autosp
