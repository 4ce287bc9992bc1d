#include "worker/collectives/stream_collectives.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ranges>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

constexpr uint32_t kChunkMagic = 0x4b435341;  // "ASCK"
constexpr auto kHeaderBytes = int64_t{32};
// Chunks that one system call sends at most: small ones go together.
constexpr int kMaxChunksInSend = 8;

// What is left of `parts` after `skip` bytes.
class Parts {
 public:
  explicit Parts(int64_t skip) : skip_(skip) {}

  void Add(const void* data, int64_t bytes) {
    const int64_t skipped = std::min(skip_, bytes);
    skip_ -= skipped;
    if (bytes == skipped) return;
    auto* begin = static_cast<std::byte*>(const_cast<void*>(data));
    parts_[count_++] = {.iov_base = begin + skipped,
                        .iov_len = static_cast<size_t>(bytes - skipped)};
  }
  absl::Span<const iovec> span() const { return {parts_.data(), count_}; }

 private:
  int64_t skip_;
  std::array<iovec, 2 * kMaxChunksInSend> parts_;
  size_t count_ = 0;
};

}  // namespace

StreamCollectives::StreamCollectives(ProcessGroup group, int rank, GroupPlacement placement,
                                     std::vector<PeerLink> links, const StreamOptions& options)
    : QueuedCollectives(std::move(group), rank),
      placement_(std::move(placement)),
      options_(options),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      wakeup_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  AUTOSP_CHECK(epoll_.is_open() && wakeup_.is_open(), "no descriptors for epoll");
  const auto watch = [this](int fd, uint32_t events, EventSource source, int peer) {
    epoll_event event = {.events = events, .data = {.u64 = EventKey(source, peer)}};
    AUTOSP_CHECK(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl ", errno);
  };
  watch(wakeup_.get(), EPOLLIN, EventSource::kWakeup, 0);
  for (PeerLink& link : links) {
    const int peer = static_cast<int>(peers_.size());
    peers_.push_back({.link = std::move(link)});
    if (peer == this->rank()) continue;
    const PeerLink& own = peers_[peer].link;
    watch(own.control->fd(), EPOLLIN | EPOLLET, EventSource::kControl, peer);
    if (own.stream->fd() < 0) continue;
    watch(own.stream->fd(), EPOLLIN | EPOLLOUT | EPOLLET, EventSource::kData, peer);
  }
}

StreamCollectives::~StreamCollectives() {
  for (const Peer& peer : peers_) {
    if (peer.link.control != nullptr) peer.link.control->SendLeave();
  }
}

void StreamCollectives::Abort(absl::string_view reason) {
  if (is_abort_claimed_.exchange(true)) return;
  const size_t length = std::min(reason.size(), abort_reason_.size() - 1);
  std::memcpy(abort_reason_.data(), reason.data(), length);
  is_aborted_.store(true);
  for (const Peer& peer : peers_) {
    if (peer.link.control != nullptr) peer.link.control->SendAbort(reason);
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = write(wakeup_.get(), &one, sizeof(one));
}

absl::Status StreamCollectives::StartImpl(const CollectiveCall& call) {
  RETURN_IF_ERROR(failure());
  if (is_aborted_.load()) return Fail(absl::AbortedError(abort_reason_.data()));
  ASSIGN_OR_RETURN(StreamCall * active, Enqueue(call));
  active->outboxes.resize(size());
  active->inboxes.resize(size());
  active->num_copied.resize(size());
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    const int64_t chunk_bytes = options_.chunk_bytes;
    active->outboxes[peer].chunks = ChunksOnLink(call, placement_, chunk_bytes, rank(), peer);
    active->inboxes[peer].chunks = ChunksOnLink(call, placement_, chunk_bytes, peer, rank());
    active->NoteAddends(active->inboxes[peer].chunks | std::views::transform(&LinkChunk::chunk));
  }
  for (int peer = 0; peer < size(); ++peer) {
    while (peer != rank() && SendTo(peer)) {
    }
  }
  return absl::OkStatus();
}

// One step with every peer, again and again, so that both directions of all links are kept busy.
absl::StatusOr<bool> StreamCollectives::Progress() {
  bool any = false;
  for (Peer& peer : peers_) {
    // Shared memory has no events of its own.
    const bool is_memory = peer.link.stream != nullptr && peer.link.stream->fd() < 0;
    if (is_memory) peer.may_send = peer.may_receive = true;
  }
  for (bool again = true; again;) {
    again = false;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      again |= SendTo(peer);
      ASSIGN_OR_RETURN(const bool received, ReceiveFrom(peer));
      again |= received;
    }
    again |= ReduceStaged();
    any |= again;
  }
  while (!active_.empty() && IsComplete(active_.front())) {
    CompleteOldest();
    any = true;
  }
  return any;
}

bool StreamCollectives::IsComplete(const StreamCall& call) const {
  const auto is_done = [](const ChunkQueue& queue) { return queue.is_done(); };
  return std::ranges::all_of(call.outboxes, is_done) &&
         std::ranges::all_of(call.inboxes, is_done) && call.is_reduced();
}

// What is passed on has to have come first.
bool StreamCollectives::MayBeSent(const StreamCall& call, const LinkChunk& next) const {
  const Chunk& chunk = next.chunk;
  if (next.origin != rank()) return chunk.piece < call.num_copied[next.origin];
  return call.HasResult(chunk);
}

bool StreamCollectives::SendTo(int peer) {
  Peer& to = peers_[peer];
  if (!to.may_send) return false;
  const auto call = std::ranges::find_if(
      active_, [peer](const StreamCall& each) { return !each.outboxes[peer].is_done(); });
  if (call == active_.end()) return false;
  ChunkQueue& outbox = call->outboxes[peer];
  std::array<ChunkHeader, kMaxChunksInSend> headers;
  Parts parts(to.sent_bytes);
  size_t count = 0;
  while (count < headers.size() && outbox.next + count < outbox.chunks.size()) {
    const LinkChunk& next = outbox.chunks[outbox.next + count];
    if (!MayBeSent(*call, next)) break;
    headers[count] = HeaderOf(*call, next.chunk);
    parts.Add(&headers[count], kHeaderBytes);
    parts.Add(SourceOf(*call, next), next.chunk.bytes);
    ++count;
  }
  if (count == 0) return false;
  const absl::StatusOr<int64_t> sent = to.link.stream->Send(parts.span());
  if (!sent.ok()) {
    to.can_send = false;
    MarkBroken(peer, sent.status().message());
  }
  to.may_send = sent.ok() && *sent > 0;
  if (!to.may_send) return false;
  to.sent_bytes += *sent;
  while (!outbox.is_done() && to.sent_bytes >= kHeaderBytes + outbox.front().chunk.bytes) {
    to.sent_bytes -= kHeaderBytes + outbox.front().chunk.bytes;
    ++outbox.next;
  }
  return true;
}

absl::StatusOr<bool> StreamCollectives::ReceiveFrom(int peer) {
  Peer& from = peers_[peer];
  if (!from.may_receive) return false;
  const auto call = std::ranges::find_if(
      active_, [peer](const StreamCall& each) { return !each.inboxes[peer].is_done(); });
  if (call == active_.end()) return false;
  const LinkChunk& next = call->inboxes[peer].front();
  // A rank that falls behind is not sent more than it has room for: its peers wait.
  if (next.chunk.is_addend && from.num_staged - from.num_reduced == kStagedChunks) return false;
  Parts parts(from.received_bytes);
  parts.Add(&from.header, kHeaderBytes);
  parts.Add(DestinationOf(*call, next, peer), next.chunk.bytes);
  const absl::StatusOr<int64_t> count = from.link.stream->Receive(parts.span());
  if (!count.ok()) {
    from.can_receive = false;
    MarkBroken(peer, count.status().message());
  }
  from.may_receive = count.ok() && *count > 0;
  if (!from.may_receive) return false;
  return TakeReceived(*call, peer, *count);
}

// A peer that makes another call is noticed before a chunk of it counts.
absl::StatusOr<bool> StreamCollectives::TakeReceived(StreamCall& call, int peer, int64_t count) {
  Peer& from = peers_[peer];
  ChunkQueue& inbox = call.inboxes[peer];
  const auto& [chunk, origin] = inbox.front();
  from.received_bytes += count;
  if (from.received_bytes >= kHeaderBytes) RETURN_IF_ERROR(CheckHeader(call, peer));
  if (from.received_bytes < kHeaderBytes + chunk.bytes) return true;
  CountPayload(call.call.kind, chunk.bytes);
  from.received_bytes = 0;
  ++(chunk.is_addend ? from.num_staged : call.num_copied[origin]);
  ++inbox.next;
  return true;
}

// Reduces one piece once it has come from everybody. Pieces come in the same order from all.
bool StreamCollectives::ReduceStaged() {
  const auto call =
      std::ranges::find_if(active_, [](const StreamCall& each) { return !each.is_reduced(); });
  if (call == active_.end()) return false;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank() && peers_[peer].num_staged == peers_[peer].num_reduced) return false;
  }
  ReduceNext(*call, [this](int peer) { return StagedChunk(peer, peers_[peer].num_reduced); });
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank()) ++peers_[peer].num_reduced;
  }
  return true;
}

StreamCollectives::ChunkHeader StreamCollectives::HeaderOf(const StreamCall& call,
                                                           const Chunk& chunk) const {
  return {.magic = kChunkMagic,
          .kind = static_cast<uint8_t>(call.call.kind),
          .dtype = static_cast<uint8_t>(call.call.dtype),
          .reduce = static_cast<uint8_t>(call.call.reduce),
          .call_index = call.index,
          .call_bytes = CallBytes(call.call),
          .payload_bytes = chunk.bytes};
}

absl::Status StreamCollectives::CheckHeader(const StreamCall& call, int peer) const {
  const ChunkHeader& header = peers_[peer].header;
  const ChunkQueue& inbox = call.inboxes[peer];
  if (header == HeaderOf(call, inbox.front().chunk)) return absl::OkStatus();
  if (header.magic != kChunkMagic) return PeerError(peer, "sends what is no chunk of a call");
  return OtherCallError(peer, header);
}

// What is passed on is where it was received.
const std::byte* StreamCollectives::SourceOf(const StreamCall& call, const LinkChunk& next) const {
  return next.origin == rank() ? ChunkSource(call.call, call.blocks, next.chunk)
                               : ChunkDestination(call.call, call.blocks, next.chunk, next.origin);
}

std::byte* StreamCollectives::DestinationOf(const StreamCall& call, const LinkChunk& next,
                                            int peer) {
  return next.chunk.is_addend ? StagedChunk(peer, peers_[peer].num_staged)
                              : ChunkDestination(call.call, call.blocks, next.chunk, next.origin);
}

std::byte* StreamCollectives::StagedChunk(int peer, int64_t number) {
  std::vector<std::byte>& staging = peers_[peer].staging;
  if (staging.empty()) staging.resize(kStagedChunks * options_.chunk_bytes);
  return staging.data() + number % kStagedChunks * options_.chunk_bytes;
}

}  // namespace autosp
