#include "worker/collectives/ring_collectives.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/status_macros.h"
#include "worker/collectives/futex.h"

namespace autosp {
namespace {

// How long a rank sleeps before it looks whether its peers are alive.
constexpr int64_t kSleepMs = 50;

inline void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

RingCollectives::RingCollectives(ProcessGroup group, int rank, std::shared_ptr<Segment> segment,
                                 std::unique_ptr<PeerWatcher> watcher, const RingOptions& options)
    : QueuedCollectives(std::move(group), rank),
      segment_(std::move(segment)),
      watcher_(std::move(watcher)),
      options_(options),
      stream_begins_(size(), 0) {}

RingCollectives::~RingCollectives() {
  if (segment_ == nullptr) return;
  segment_->slot(rank()).state.store(SlotState::kLeft, std::memory_order_seq_cst);
  for (int peer = 0; peer < size(); ++peer) segment_->Ring(peer);
}

void RingCollectives::Abort(absl::string_view reason) {
  if (segment_ != nullptr) segment_->Abort(rank(), reason);
}

absl::Status RingCollectives::StartImpl(const CollectiveCall& call) {
  ASSIGN_OR_RETURN(RingCall * active, Enqueue(call));
  if (size() == 1) return absl::OkStatus();
  const int64_t chunk_bytes = segment_->geometry().chunk_bytes;
  active->outbox = ChunksSentBy(call, size(), chunk_bytes, rank());
  active->inboxes.resize(size());
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    const std::vector<Chunk> sent = ChunksSentBy(call, size(), chunk_bytes, peer);
    active->inboxes[peer] = {.chunks = ChunksFor(sent, rank()),
                             .num_sent = static_cast<int64_t>(sent.size())};
    active->NoteAddends(active->inboxes[peer].chunks);
  }
  PublishSome();
  return absl::OkStatus();
}

absl::StatusOr<bool> RingCollectives::Progress() {
  bool any = PublishSome();
  while (!active_.empty()) {
    RingCall& head = active_.front();
    ASSIGN_OR_RETURN(const bool read, ReadSome(head));
    any |= read;
    // A piece that was reduced just now may be what the stream waits for.
    if (read) any |= PublishSome();
    if (!IsComplete(head)) break;
    for (int peer = 0; peer < size() && size() > 1; ++peer) {
      stream_begins_[peer] += head.inboxes[peer].num_sent;
    }
    CompleteOldest();
    any = true;
  }
  return any;
}

bool RingCollectives::IsComplete(const RingCall& call) const {
  if (size() == 1) return true;
  if (!call.is_reading || call.num_published < call.outbox.size()) return false;
  return std::all_of(call.inboxes.begin(), call.inboxes.end(),
                     [](const RingInbox& inbox) { return inbox.next == inbox.chunks.size(); });
}

// Publishes in call order; a later call may go ahead of the head's reads, never of its chunks.
bool RingCollectives::PublishSome() {
  bool any = false;
  for (RingCall& call : active_) {
    while (call.num_published < call.outbox.size()) {
      if (!PublishNext(call)) return any;
      any = true;
    }
  }
  return any;
}

bool RingCollectives::PublishNext(RingCall& call) {
  const Chunk& chunk = call.outbox[call.num_published];
  if (!call.HasResult(chunk) || !HasRoom()) return false;
  segment_->chunk_header(rank(), published_) = {.call_index = call.index,
                                                .call_bytes = CallBytes(call.call),
                                                .payload_bytes = chunk.bytes,
                                                .kind = static_cast<uint8_t>(call.call.kind),
                                                .dtype = static_cast<uint8_t>(call.call.dtype),
                                                .reduce = static_cast<uint8_t>(call.call.reduce)};
  if (chunk.bytes > 0) {
    std::memcpy(segment_->chunk(rank(), published_), ChunkSource(call.call, call.blocks, chunk),
                chunk.bytes);
  }
  segment_->slot(rank()).produced.store(++published_, std::memory_order_seq_cst);
  ++call.num_published;
  if (chunk.destination != kToAllRanks) {
    segment_->Ring(chunk.destination);
  } else {
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != rank()) segment_->Ring(peer);
    }
  }
  return true;
}

bool RingCollectives::HasRoom() {
  const int64_t must_be_read = published_ - segment_->geometry().chunks_per_ring;
  if (oldest_unread_ > must_be_read) return true;
  oldest_unread_ = INT64_MAX;
  for (int reader = 0; reader < size(); ++reader) {
    if (reader == rank()) continue;
    oldest_unread_ =
        std::min(oldest_unread_, segment_->cursor(rank(), reader).load(std::memory_order_seq_cst));
  }
  return oldest_unread_ > must_be_read;
}

// From here on, chunks of the call that are not for this rank no longer hold up their senders.
void RingCollectives::BeginReading(RingCall& call) {
  call.is_reading = true;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    segment_->cursor(peer, rank()).store(StreamPosition(call, peer), std::memory_order_seq_cst);
    segment_->Ring(peer);
  }
}

absl::StatusOr<bool> RingCollectives::ReadSome(RingCall& call) {
  if (size() == 1) return false;
  bool any = false;
  if (!call.is_reading) BeginReading(call);
  for (bool again = true; again;) {
    again = false;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      ASSIGN_OR_RETURN(const bool copied, CopyArrived(call, peer));
      again |= copied;
    }
    ASSIGN_OR_RETURN(const bool reduced, ReduceArrived(call));
    again |= reduced;
    any |= again;
    // Peers wait for this rank's chunks as it waits for theirs: sending comes between reads.
    if (again) PublishSome();
  }
  return any;
}

const Chunk& RingCollectives::NextChunk(const RingCall& call, int peer) const {
  return call.inboxes[peer].chunks[call.inboxes[peer].next];
}

// Where the next chunk for this rank is in the stream of `peer`; its end of the call if none is
// left.
int64_t RingCollectives::StreamPosition(const RingCall& call, int peer) const {
  const RingInbox& inbox = call.inboxes[peer];
  const bool is_done = inbox.next == inbox.chunks.size();
  return stream_begins_[peer] + (is_done ? inbox.num_sent : inbox.chunks[inbox.next].position);
}

bool RingCollectives::HasArrived(const RingCall& call, int peer) const {
  if (call.inboxes[peer].next == call.inboxes[peer].chunks.size()) return false;
  return segment_->slot(peer).produced.load(std::memory_order_seq_cst) > StreamPosition(call, peer);
}

void RingCollectives::Advance(RingCall& call, int peer) {
  CountPayload(call.call.kind, NextChunk(call, peer).bytes);
  ++call.inboxes[peer].next;
  segment_->cursor(peer, rank()).store(StreamPosition(call, peer), std::memory_order_seq_cst);
  segment_->Ring(peer);
}

absl::StatusOr<bool> RingCollectives::CopyArrived(RingCall& call, int peer) {
  if (!HasArrived(call, peer)) return false;
  const Chunk& chunk = NextChunk(call, peer);
  RETURN_IF_ERROR(CheckHeader(call, peer));
  if (chunk.is_addend) return false;
  if (chunk.bytes > 0) {
    std::memcpy(ChunkDestination(call.call, call.blocks, chunk, peer),
                segment_->chunk(peer, StreamPosition(call, peer)), chunk.bytes);
  }
  Advance(call, peer);
  return true;
}

// Reduces one piece once it has come from everybody.
absl::StatusOr<bool> RingCollectives::ReduceArrived(RingCall& call) {
  if (call.is_reduced()) return false;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    if (!HasArrived(call, peer) || !NextChunk(call, peer).is_addend) return false;
  }
  ReduceNext(call, [&](int peer) { return segment_->chunk(peer, StreamPosition(call, peer)); });
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank()) Advance(call, peer);
  }
  return true;
}

absl::Status RingCollectives::CheckHeader(const RingCall& call, int peer) const {
  const ChunkHeader& header = segment_->chunk_header(peer, StreamPosition(call, peer));
  const bool agrees = header.call_index == call.index &&
                      header.kind == static_cast<uint8_t>(call.call.kind) &&
                      header.call_bytes == CallBytes(call.call) &&
                      header.payload_bytes == NextChunk(call, peer).bytes &&
                      header.dtype == static_cast<uint8_t>(call.call.dtype) &&
                      header.reduce == static_cast<uint8_t>(call.call.reduce);
  if (agrees) return absl::OkStatus();
  return OtherCallError(peer, header);
}

absl::Status RingCollectives::Park(absl::Duration* idle_since) {
  for (int round = 0; round < options_.spin_rounds; ++round) {
    CpuRelax();
    ASSIGN_OR_RETURN(const bool progress, Progress());
    if (!progress) continue;
    *idle_since = absl::InfiniteDuration();
    return absl::OkStatus();
  }
  // Another rank may just need this core.
  sched_yield();
  RankSlot& slot = segment_->slot(rank());
  const uint32_t doorbell = slot.doorbell.load(std::memory_order_seq_cst);
  slot.is_sleeping.store(1, std::memory_order_seq_cst);
  absl::StatusOr<bool> progress = Progress();
  if (progress.ok() && !*progress && segment_->header().abort_rank.load() == 0) {
    FutexWait(slot.doorbell, doorbell, kSleepMs);
  }
  slot.is_sleeping.store(0, std::memory_order_seq_cst);
  RETURN_IF_ERROR(progress.status());
  if (*progress) {
    *idle_since = absl::InfiniteDuration();
    return absl::OkStatus();
  }
  const absl::Duration now = Clock::Real().Steady();
  if (*idle_since == absl::InfiniteDuration()) *idle_since = now;
  return CheckAwaitedPeers(idle_since);
}

RingCollectives::Losses RingCollectives::FindLosses() {
  Losses losses;
  losses.aborted_by = segment_->header().abort_rank.load(std::memory_order_seq_cst);
  if (watcher_ != nullptr) losses.deaths = watcher_->FindDead();
  for (int peer = 0; peer < size(); ++peer) {
    const SlotState state = segment_->slot(peer).state.load(std::memory_order_seq_cst);
    if (state == SlotState::kLeft) losses.left.push_back(peer);
  }
  // One that had left before its end had done all its part.
  std::erase_if(losses.deaths, [&losses](const PeerWatcher::Death& death) {
    return std::ranges::count(losses.left, death.rank) > 0;
  });
  return losses;
}

absl::Status RingCollectives::ErrorOf(const Losses& losses) const {
  if (!losses.deaths.empty()) {
    const PeerWatcher::Death& death = losses.deaths.front();
    return PeerError(death.rank, absl::StrCat("has died: ", death.how));
  }
  if (losses.aborted_by == 0) return absl::OkStatus();
  const RankSlot& slot = segment_->slot(losses.aborted_by - 1);
  if (losses.aborted_by - 1 == rank()) return absl::AbortedError(slot.abort_reason);
  return MarkPeerLost(absl::AbortedError(absl::StrCat(
      CurrentCall(), ": ", PeerName(losses.aborted_by - 1), " has aborted: ", slot.abort_reason)));
}

absl::Status RingCollectives::CheckPeers() {
  if (segment_ == nullptr) return absl::OkStatus();
  return ErrorOf(FindLosses());
}

// A peer that has ended may have published what is missing just before, so that the last look comes
// after its end was seen.
absl::Status RingCollectives::CheckAwaitedPeers(absl::Duration* idle_since) {
  const Losses losses = FindLosses();
  ASSIGN_OR_RETURN(const bool progress, Progress());
  if (progress) {
    *idle_since = absl::InfiniteDuration();
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(ErrorOf(losses));
  const std::vector<int> awaited = AwaitedPeers();
  for (int peer : awaited) {
    if (std::ranges::count(losses.left, peer) > 0) return PeerError(peer, "has left the group");
  }
  if (Clock::Real().Steady() - *idle_since > options_.timeout) {
    return TimeoutError(awaited, options_.timeout);
  }
  return absl::OkStatus();
}

// Peers whose chunks are missing; else those that have not read this rank's.
std::vector<int> RingCollectives::AwaitedPeers() const {
  std::vector<int> awaited;
  if (active_.empty()) return awaited;
  const RingCall& head = active_.front();
  for (int peer = 0; peer < size(); ++peer) {
    const RingInbox& inbox = head.inboxes[peer];
    if (inbox.next < inbox.chunks.size() && !HasArrived(head, peer)) awaited.push_back(peer);
  }
  if (!awaited.empty()) return awaited;
  const int64_t must_be_read = published_ - segment_->geometry().chunks_per_ring;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank() && segment_->cursor(rank(), peer).load() <= must_be_read) {
      awaited.push_back(peer);
    }
  }
  return awaited;
}

std::string RingCollectives::PeerName(int peer) const {
  return absl::StrCat("rank ", group().ranks[peer]);
}

}  // namespace autosp
