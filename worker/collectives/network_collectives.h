// Collectives of a group whose members run on several hosts: over TCP with those on other hosts,
// through shared memory with those on the same.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/collectives/collectives.h"
#include "worker/collectives/stream_collectives.h"
#include "worker/collectives/tcp_rendezvous.h"

namespace autosp {

struct NetworkOptions {
  // Of the names of memory that members on one node share. The same on all ranks of the attempt,
  // and of no other.
  std::string shm_prefix;
  StreamOptions stream = {};
};

// Opens this rank's end; returns when all members have. `rank` is the index in the group. The
// rendezvous is used again for further groups, and not needed any more once all are open.
absl::StatusOr<std::unique_ptr<Collectives>> OpenNetworkCollectives(const ProcessGroup& group,
                                                                    int rank,
                                                                    TcpRendezvous& rendezvous,
                                                                    const NetworkOptions& options);

}  // namespace autosp
