// Communication between the ranks of one group, on raw bytes.
//
// All members make the same calls in the same order. A call is started and then waited for; its
// buffers belong to the call in between. Calls of one group complete in the order in which they
// were started. Results do not depend on timing: reductions add rank 0, 1, ..., P - 1 in this
// order, half types in fp32, so that every rank and every run gets the same bits.
//
// A call never hangs: a peer that dies, leaves or aborts, and one that takes longer than the
// time-out, ends it with a status that names the peer and the call. After an error the group is of
// no further use, and every later call returns the same error.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "compiler/ir/dtype.h"
#include "compiler/program/collective_bytes.h"
#include "worker/collectives/process_group.h"

namespace autosp {

enum class ReduceOp : uint8_t { kSum, kMax };

// One call on one rank. P is the size of the group.
//
//   all_to_all      send: P blocks, block i for rank i    recv: P blocks, block i from rank i
//   all_gather      send: this rank's shard               recv: P shards; may hold `send` in place
//   reduce_scatter  send: P blocks                        recv: this rank's block, reduced
//   all_reduce      send: the addends                     recv: same size; may be `send` itself
//   send_recv       send: for rank + shift (mod P)        recv: same size, from rank - shift
//   broadcast       send: empty                           recv: the buffer, the root's on return
//   barrier         empty                                 empty
struct CollectiveCall {
  CollectiveKind kind = CollectiveKind::kBarrier;
  absl::Span<const std::byte> send = {};
  absl::Span<std::byte> recv = {};
  DType dtype = DType::kF32;         // reductions only
  ReduceOp reduce = ReduceOp::kSum;  // reductions only
  int root = 0;                      // broadcast only: index in the group
  int shift = 1;                     // send_recv only
};

std::string KindName(CollectiveKind kind);
// "all_reduce of 4096 bytes"
std::string DescribeCall(const CollectiveCall& call);

// The size from which BytesReceived computes.
int64_t CallBytes(const CollectiveCall& call);

struct CollectiveHandle {
  int64_t index = -1;  // counts the calls of the group from 0
};

// Whether an error says that another rank is the cause: it died, left, aborted or did not come.
// Kept when context is added.
bool IsPeerLost(const absl::Status& status);
absl::Status MarkPeerLost(absl::Status status);

// What one group of one rank has done so far.
struct CollectiveCounter {
  int64_t calls = 0;
  int64_t bytes_received = 0;  // by BytesReceived
  int64_t payload_bytes = 0;   // copied out of peers' memory; all_reduce: differs between ranks
  double seconds = 0;          // spent inside Start and Wait
};
struct CollectiveCounters {
  std::array<CollectiveCounter, kAllCollectiveKinds.size()> by_kind;

  const CollectiveCounter& of(CollectiveKind kind) const {
    return by_kind[static_cast<size_t>(kind)];
  }
  CollectiveCounter& of(CollectiveKind kind) { return by_kind[static_cast<size_t>(kind)]; }
  CollectiveCounters& operator+=(const CollectiveCounters& other);
};

// One rank's end of a group. Used by one thread at a time, but for Abort.
class Collectives {
 public:
  // Requires: `rank` is the place of this rank in `group`.
  Collectives(ProcessGroup group, int rank);
  Collectives(const Collectives&) = delete;
  Collectives& operator=(const Collectives&) = delete;
  virtual ~Collectives() = default;

  const ProcessGroup& group() const { return group_; }
  int rank() const { return rank_; }  // index in the group
  int size() const { return group_.size(); }
  const CollectiveCounters& counters() const { return counters_; }

  absl::StatusOr<CollectiveHandle> Start(const CollectiveCall& call);
  absl::Status Wait(CollectiveHandle handle);
  absl::Status Run(const CollectiveCall& call);  // Start, then Wait

  absl::Status AllToAll(absl::Span<const std::byte> send, absl::Span<std::byte> recv);
  absl::Status AllGather(absl::Span<const std::byte> send, absl::Span<std::byte> recv);
  absl::Status ReduceScatter(absl::Span<const std::byte> send, absl::Span<std::byte> recv,
                             DType dtype, ReduceOp op = ReduceOp::kSum);
  absl::Status AllReduce(absl::Span<const std::byte> send, absl::Span<std::byte> recv, DType dtype,
                         ReduceOp op = ReduceOp::kSum);
  absl::Status SendRecv(absl::Span<const std::byte> send, absl::Span<std::byte> recv, int shift);
  absl::Status Broadcast(absl::Span<std::byte> buffer, int root);
  absl::Status Barrier();

  // Returns when what was started is complete on the device too. Where a device computes, Wait only
  // orders the work behind it, and results are known to be good after this. At once elsewhere.
  virtual absl::Status Synchronize() { return absl::OkStatus(); }

  // An error when a peer has died or any rank has aborted, as far as that can be seen without
  // waiting; for those who communicate by other means and keep this group beside it.
  virtual absl::Status CheckPeers() { return absl::OkStatus(); }

  // Ends the calls of all members with an error that names this rank and the reason. Callable from
  // any thread and from a signal handler; only the first one of a group counts.
  virtual void Abort(absl::string_view reason) = 0;

 protected:
  virtual absl::Status StartImpl(const CollectiveCall& call) = 0;
  // Returns when call number `index` is complete; adds what was copied to `payload_bytes` by kind.
  virtual absl::Status WaitImpl(int64_t index) = 0;

  void CountPayload(CollectiveKind kind, int64_t bytes) {
    counters_.of(kind).payload_bytes += bytes;
  }

 private:
  absl::Status Check(const CollectiveCall& call) const;

  const ProcessGroup group_;
  const int rank_;
  int64_t num_started_ = 0;
  // Kinds of recent calls, for Wait to know which counter its seconds belong to.
  std::array<CollectiveKind, 256> recent_kinds_{};
  CollectiveCounters counters_;
};

}  // namespace autosp
