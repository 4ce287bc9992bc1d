#include "worker/collectives/in_process_collectives.h"

#include <algorithm>

#include "worker/collectives/chunk_schedule.h"
#include "worker/collectives/segment.h"

namespace autosp {

std::vector<std::unique_ptr<Collectives>> MakeInProcessCollectives(
    const ProcessGroup& group, const InProcessOptions& options) {
  const int size = group.size();
  std::shared_ptr<Segment> segment;
  if (size > 1) {
    segment = Segment::OnHeap({.group_size = size,
                               .chunk_bytes = options.chunk_bytes,
                               .chunks_per_ring = std::max<int64_t>(8, MinChunksInStream(size))});
    for (int rank = 0; rank < size; ++rank) {
      segment->slot(rank).state.store(SlotState::kAttached);
    }
  }
  std::vector<std::unique_ptr<Collectives>> ends;
  for (int rank = 0; rank < size; ++rank) {
    ends.push_back(
        std::make_unique<RingCollectives>(group, rank, segment, /*watcher=*/nullptr, options.ring));
  }
  return ends;
}

}  // namespace autosp
