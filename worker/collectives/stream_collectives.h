// Collectives over a stream of bytes with each peer: between hosts, and mixed where some members of
// a group share a host.
//
// The chunks are those of link_schedule.h. A rank sends to each peer the chunks that are for it,
// in the order of calls, straight from the buffers of the calls, and receives straight into them;
// only addends wait in a small buffer until all peers' have come. Each chunk says which call it
// belongs to. Reductions add in the order of ranks, so that results are the same bits as over a
// Segment.
//
// There is no progress thread: Start sends what the streams take, Wait does the rest. A rank that
// has to wait sleeps in epoll.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/file.h"
#include "worker/collectives/link_schedule.h"
#include "worker/collectives/peer_control.h"
#include "worker/collectives/peer_stream.h"
#include "worker/collectives/queued_collectives.h"

namespace autosp {

// The way to one other member.
struct PeerLink {
  std::unique_ptr<PeerControl> control;
  std::unique_ptr<PeerStream> stream;
  std::string name;  // "rank 3 on node b"; for messages
};

struct StreamOptions {
  // Longest time in which no peer makes any progress that this rank waits for.
  absl::Duration timeout = absl::Minutes(10);
  int64_t chunk_bytes = 256 << 10;
};

// Chunks of one call to or from one peer.
struct ChunkQueue {
  std::vector<LinkChunk> chunks;
  size_t next = 0;
  const LinkChunk& front() const { return chunks[next]; }
  bool is_done() const { return next == chunks.size(); }
};

struct StreamCall : QueuedCall {
  std::vector<ChunkQueue> outboxes = {};  // by peer; the own one is empty
  std::vector<ChunkQueue> inboxes = {};
  std::vector<int64_t> num_copied = {};  // by origin: chunks that have come and are no addends
};

class StreamCollectives final : public QueuedCollectives<StreamCall> {
 public:
  // Requires: `links` are by index in the group; that of `rank` is empty. `placement` is the same
  // on all members.
  StreamCollectives(ProcessGroup group, int rank, GroupPlacement placement,
                    std::vector<PeerLink> links, const StreamOptions& options);
  // Peers that still wait for this rank get an error.
  ~StreamCollectives() override;

  void Abort(absl::string_view reason) override;
  absl::Status CheckPeers() override;

 protected:
  absl::Status StartImpl(const CollectiveCall& call) override;
  absl::StatusOr<bool> Progress() override;
  absl::Status Park(absl::Duration* idle_since) override;
  std::string PeerName(int peer) const override;

 private:
  // What epoll tells of.
  enum class EventSource : uint32_t { kWakeup, kControl, kData };
  static uint64_t EventKey(EventSource source, int peer) {
    return static_cast<uint64_t>(source) << 32 | static_cast<uint32_t>(peer);
  }

  // On the wire before each chunk.
  struct ChunkHeader {
    uint32_t magic = 0;
    uint8_t kind = 0;
    uint8_t dtype = 0;
    uint8_t reduce = 0;
    uint8_t unused = 0;
    int64_t call_index = 0;
    int64_t call_bytes = 0;
    int64_t payload_bytes = 0;
    friend bool operator==(const ChunkHeader&, const ChunkHeader&) = default;
  };
  static_assert(sizeof(ChunkHeader) == 32);

  // Addends of a peer that have arrived before those of the others.
  static constexpr int64_t kStagedChunks = 2;
  struct Peer {
    PeerLink link;
    // Whether a try may move something: not after one that did not, until there is news.
    bool may_send = true;
    bool may_receive = true;
    bool can_send = true;  // the stream has given no error
    bool can_receive = true;
    int64_t sent_bytes = 0;      // of the header and payload of the chunk that is being sent
    int64_t received_bytes = 0;  // likewise
    ChunkHeader header = {};     // of the chunk that is being received
    std::vector<std::byte> staging = {};
    int64_t num_staged = 0;   // since the beginning, as the next
    int64_t num_reduced = 0;  // of those
    std::string broken = {};  // the first error of the stream; empty: none
    absl::Duration broken_since = {};
  };

  bool IsComplete(const StreamCall& call) const;

  // Each does what can be done without waiting; true if that was anything.
  bool SendTo(int peer);
  absl::StatusOr<bool> ReceiveFrom(int peer);
  absl::StatusOr<bool> TakeReceived(StreamCall& call, int peer, int64_t count);
  bool ReduceStaged();
  bool MayBeSent(const StreamCall& call, const LinkChunk& next) const;

  ChunkHeader HeaderOf(const StreamCall& call, const Chunk& chunk) const;
  absl::Status CheckHeader(const StreamCall& call, int peer) const;
  const std::byte* SourceOf(const StreamCall& call, const LinkChunk& next) const;
  std::byte* DestinationOf(const StreamCall& call, const LinkChunk& next, int peer);
  std::byte* StagedChunk(int peer, int64_t number);

  void Sleep(int timeout_ms);
  absl::Status CheckAwaitedPeers(absl::Duration idle_since);
  absl::Status FindLoss() const;
  absl::Status FindAbort() const;
  void FindStalls();
  void MarkBroken(int peer, absl::string_view why);
  std::vector<int> AwaitedPeers() const;

  const GroupPlacement placement_;
  const StreamOptions options_;
  std::vector<Peer> peers_;
  UniqueFd epoll_;
  UniqueFd wakeup_;  // an eventfd that Abort writes to
  absl::Duration stalls_checked_at_;
  std::atomic<bool> is_abort_claimed_ = false;
  std::atomic<bool> is_aborted_ = false;  // `abort_reason_` is written
  std::array<char, 400> abort_reason_ = {};
};

}  // namespace autosp
