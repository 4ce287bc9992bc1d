// Collectives between the processes of one host, over POSIX shared memory.
//
// The first rank of the group creates a segment, the others attach to it, and the last one to
// attach unlinks its name: from then on nothing is left behind, however the processes end. The
// segment says which generation of the job it belongs to; a process of another generation is
// refused.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/collectives/collectives.h"
#include "worker/collectives/ring_collectives.h"
#include "worker/collectives/shared_memory.h"

namespace autosp {

struct SharedMemoryOptions {
  // Of the segments' names: "/autosp-<job>-<generation>". The same on all ranks, and of no other
  // attempt.
  std::string name_prefix;
  int64_t generation = 0;
  absl::Duration rendezvous_timeout = absl::Minutes(1);
  RingOptions ring = {};
  // Of the creator; the others find them in the segment.
  int64_t chunk_bytes = 64 << 10;
  int64_t chunks_per_ring = 16;
};

// Opens this rank's end; returns when all members have. `rank` is the index in the group.
absl::StatusOr<std::unique_ptr<Collectives>> OpenSharedMemoryCollectives(
    const ProcessGroup& group, int rank, const SharedMemoryOptions& options);

}  // namespace autosp
