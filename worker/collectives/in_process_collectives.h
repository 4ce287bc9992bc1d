// Collectives between the threads of one process: virtual ranks.
#pragma once

#include <memory>
#include <vector>

#include "worker/collectives/collectives.h"
#include "worker/collectives/ring_collectives.h"

namespace autosp {

struct InProcessOptions {
  int64_t chunk_bytes = 64 << 10;
  RingOptions ring = {};
};

// The ends of one group, in group order, each to be used by a thread of its own. When an end is
// destroyed, peers that still wait for it get an error.
std::vector<std::unique_ptr<Collectives>> MakeInProcessCollectives(
    const ProcessGroup& group, const InProcessOptions& options = {});

}  // namespace autosp
