// One collective call as calls of NCCL.
#pragma once

#include "absl/status/status.h"
#include "worker/collectives/collectives.h"
#include "worker/nccl/nccl_device.h"

namespace autosp {

// An error where NCCL has no type for the elements of a reduction.
absl::Status CheckNcclType(const CollectiveCall& call);

// Ok for kSuccess and kInProgress. `what` was called on `comm`. Errors that another rank causes are
// marked as such.
absl::Status NcclStatus(NcclApi& nccl, NcclResult result, NcclComm comm, absl::string_view what);

// Enqueues the call on the communication stream. What does not reduce moves as bytes; all_to_all
// and send_recv are sends and receives in one group; a bool is a byte, and its sum the maximum.
// Afterwards the communicator may be in progress. Requires: CheckNcclType.
absl::Status EnqueueOnNccl(const NcclDevice& device, NcclComm comm, int rank, int size,
                           const CollectiveCall& call);

// What the call brings into this rank, as a ring moves it: for all_reduce, the peers' addends of
// its own block and the other blocks reduced. NCCL does not tell what it really copied.
int64_t NcclPayloadBytes(const CollectiveCall& call, int rank, int size);

}  // namespace autosp
