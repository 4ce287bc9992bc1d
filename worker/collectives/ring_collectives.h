// Collectives over a Segment: each rank streams chunks through its ring, and its peers read them.
//
// A message is copied twice, into the sender's ring and out of it, a chunk at a time, so that the
// second copy finds the data in a cache that both cores share, and both copies of neighbouring
// chunks overlap. Reductions read the peers' rings directly.
//
// There is no progress thread: Start publishes as much as the ring has room for and returns; Wait
// does the rest. A rank that has to wait spins for microseconds, then sleeps on its doorbell, and
// wakes now and then to see whether its peers are alive.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "worker/collectives/chunk_schedule.h"
#include "worker/collectives/queued_collectives.h"
#include "worker/collectives/segment.h"

namespace autosp {

// Tells whether the processes of peers exist.
class PeerWatcher {
 public:
  virtual ~PeerWatcher() = default;
  // Peers (by index in the group) that have ended, with words for a message: "pid 123 is gone".
  struct Death {
    int rank;
    std::string how;
  };
  virtual std::vector<Death> FindDead() = 0;
};

struct RingOptions {
  // Longest time in which no peer makes any progress that this rank waits for.
  absl::Duration timeout = absl::Minutes(10);
  // Rounds of polling before a rank sleeps. 0 where ranks outnumber cores.
  int spin_rounds = 200;
};

// What a rank still has to read from one peer for one call.
struct RingInbox {
  std::vector<Chunk> chunks;
  size_t next = 0;
  int64_t num_sent = 0;  // all chunks that the peer adds to its stream for the call
};

struct RingCall : QueuedCall {
  std::vector<Chunk> outbox = {};
  size_t num_published = 0;
  std::vector<RingInbox> inboxes = {};  // by peer; the own one is empty
  bool is_reading = false;
};

class RingCollectives final : public QueuedCollectives<RingCall> {
 public:
  // Requires: the slot of `rank` is attached. `watcher` may be null.
  RingCollectives(ProcessGroup group, int rank, std::shared_ptr<Segment> segment,
                  std::unique_ptr<PeerWatcher> watcher, const RingOptions& options);
  // Peers that still wait for this rank get an error.
  ~RingCollectives() override;

  void Abort(absl::string_view reason) override;
  absl::Status CheckPeers() override;

 protected:
  absl::Status StartImpl(const CollectiveCall& call) override;
  absl::StatusOr<bool> Progress() override;
  absl::Status Park(absl::Duration* idle_since) override;
  std::string PeerName(int peer) const override;

 private:
  void BeginReading(RingCall& call);
  bool IsComplete(const RingCall& call) const;

  // Each does what can be done without waiting; true if that was anything.
  bool PublishSome();
  bool PublishNext(RingCall& call);
  absl::StatusOr<bool> ReadSome(RingCall& call);
  absl::StatusOr<bool> CopyArrived(RingCall& call, int peer);
  absl::StatusOr<bool> ReduceArrived(RingCall& call);

  bool HasRoom();
  bool HasArrived(const RingCall& call, int peer) const;
  const Chunk& NextChunk(const RingCall& call, int peer) const;
  int64_t StreamPosition(const RingCall& call, int peer) const;
  void Advance(RingCall& call, int peer);
  absl::Status CheckHeader(const RingCall& call, int peer) const;

  absl::Status CheckAwaitedPeers(absl::Duration* idle_since);
  // Peers that have ended, those that have left before excepted, and the rank that has aborted.
  struct Losses {
    std::vector<PeerWatcher::Death> deaths;
    std::vector<int> left;
    int32_t aborted_by = 0;  // index in the group, plus 1
  };
  Losses FindLosses();
  absl::Status ErrorOf(const Losses& losses) const;
  std::vector<int> AwaitedPeers() const;

  std::shared_ptr<Segment> segment_;
  std::unique_ptr<PeerWatcher> watcher_;
  RingOptions options_;
  int64_t published_ = 0;      // position in the own stream
  int64_t oldest_unread_ = 0;  // the slowest reader's position, when last looked at
  std::vector<int64_t>
      stream_begins_;  // by peer: where its stream is at the head call's first chunk
};

}  // namespace autosp
