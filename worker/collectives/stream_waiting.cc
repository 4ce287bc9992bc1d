// How a rank waits for its peers, and what ends a wait that is in vain.

#include <sys/epoll.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/status_macros.h"
#include "worker/collectives/stream_collectives.h"

namespace autosp {
namespace {

constexpr int kSleepMs = 100;
// Rounds of looking at the sockets before a rank sleeps.
constexpr int kSpinRounds = 20;
// For the word of a peer, or of its kernel, on why its data has stopped.
constexpr absl::Duration kExplainTimeout = absl::Seconds(2);
constexpr absl::Duration kStallInterval = absl::Seconds(1);

absl::Duration Now() { return Clock::Real().Steady(); }

}  // namespace

absl::Status StreamCollectives::Park(absl::Duration* idle_since) {
  for (int round = 0; round < kSpinRounds; ++round) {
    Sleep(/*timeout_ms=*/0);
    ASSIGN_OR_RETURN(const bool progress, Progress());
    if (!progress) continue;
    *idle_since = absl::InfiniteDuration();
    return absl::OkStatus();
  }
  for (Peer& peer : peers_) {
    if (peer.link.stream != nullptr) peer.link.stream->BeginSleep();
  }
  Sleep(/*timeout_ms=*/0);
  ASSIGN_OR_RETURN(bool progress, Progress());
  if (!progress && !is_aborted_.load()) Sleep(kSleepMs);
  for (Peer& peer : peers_) {
    if (peer.link.stream != nullptr) peer.link.stream->EndSleep();
  }
  ASSIGN_OR_RETURN(const bool later, Progress());
  if (progress || later) {
    *idle_since = absl::InfiniteDuration();
    return absl::OkStatus();
  }
  if (*idle_since == absl::InfiniteDuration()) *idle_since = Now();
  return CheckAwaitedPeers(*idle_since);
}

// Takes in what the kernel has to tell, for `timeout_ms` at most.
void StreamCollectives::Sleep(int timeout_ms) {
  epoll_event events[64];
  const int count = epoll_wait(epoll_.get(), events, std::size(events), timeout_ms);
  for (int i = 0; i < count; ++i) {
    const auto source = static_cast<EventSource>(events[i].data.u64 >> 32);
    if (source == EventSource::kWakeup) continue;
    Peer& peer = peers_[static_cast<uint32_t>(events[i].data.u64)];
    if (source == EventSource::kControl) peer.link.control->Read();
    peer.may_send = peer.can_send;
    peer.may_receive = peer.can_receive;
  }
}

// The true cause comes before what follows from it: a death or a cut before the aborts of those who
// noticed it first, and all of these before a broken stream.
absl::Status StreamCollectives::CheckAwaitedPeers(absl::Duration idle_since) {
  RETURN_IF_ERROR(FindLoss());
  RETURN_IF_ERROR(FindAbort());
  FindStalls();
  const std::vector<int> awaited = AwaitedPeers();
  for (int peer : awaited) {
    const Peer& other = peers_[peer];
    // What it had sent before may still be on the way, and comes before the stream's end.
    const bool has_ended = !other.broken.empty() || other.link.stream->fd() < 0;
    if (other.link.control->has_left() && has_ended) {
      return PeerError(peer, "has left the group");
    }
    if (!other.broken.empty() && Now() - other.broken_since > kExplainTimeout) {
      return PeerError(peer, absl::StrCat("cannot be reached any more: ", other.broken));
    }
  }
  if (Now() - idle_since > options_.timeout) {
    return TimeoutError(awaited, options_.timeout);
  }
  return absl::OkStatus();
}

absl::Status StreamCollectives::CheckPeers() {
  Sleep(/*timeout_ms=*/0);
  RETURN_IF_ERROR(FindLoss());
  return FindAbort();
}

absl::Status StreamCollectives::FindAbort() const {
  if (is_aborted_.load()) return absl::AbortedError(abort_reason_.data());
  for (const Peer& peer : peers_) {
    if (peer.link.control == nullptr || !peer.link.control->has_aborted()) continue;
    return MarkPeerLost(absl::AbortedError(absl::StrCat(
        CurrentCall(), ": ", peer.link.name, " has aborted: ", peer.link.control->abort_reason())));
  }
  return absl::OkStatus();
}

absl::Status StreamCollectives::FindLoss() const {
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    const PeerControl& control = *peers_[peer].link.control;
    // One that has said why it goes is no riddle.
    const bool is_lost = !control.loss().empty() && !control.has_aborted();
    if (is_lost) return PeerError(peer, control.loss());
  }
  return absl::OkStatus();
}

void StreamCollectives::FindStalls() {
  if (Now() - stalls_checked_at_ < kStallInterval) return;
  stalls_checked_at_ = Now();
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    const std::string stall = peers_[peer].link.stream->FindStall();
    if (!stall.empty()) MarkBroken(peer, stall);
  }
}

void StreamCollectives::MarkBroken(int peer, absl::string_view why) {
  Peer& broken = peers_[peer];
  if (!broken.broken.empty()) return;
  broken.broken = std::string(why);
  broken.broken_since = Now();
}

// Peers whose chunks are missing; else those that have not taken this rank's.
std::vector<int> StreamCollectives::AwaitedPeers() const {
  std::vector<int> awaited;
  if (active_.empty()) return awaited;
  const StreamCall& head = active_.front();
  for (int peer = 0; peer < size(); ++peer) {
    if (!head.inboxes[peer].is_done()) awaited.push_back(peer);
  }
  if (!awaited.empty()) return awaited;
  for (int peer = 0; peer < size(); ++peer) {
    if (!head.outboxes[peer].is_done()) awaited.push_back(peer);
  }
  return awaited;
}

std::string StreamCollectives::PeerName(int peer) const { return peers_[peer].link.name; }

}  // namespace autosp
