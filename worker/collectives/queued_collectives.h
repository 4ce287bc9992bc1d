// The calls of a group that are under way, oldest first: what collectives over shared memory and
// those over streams do alike.
//
// There is no progress thread. Start does what needs no waiting; Wait makes progress with all calls
// until its own is complete, and parks while there is none to make.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "worker/collectives/chunk_schedule.h"
#include "worker/collectives/collectives.h"
#include "worker/collectives/reduce.h"

namespace autosp {

// What any call under way has; ways of exchange add what they have to send and to receive.
struct QueuedCall {
  CollectiveCall call;
  int64_t index = 0;
  CallBlocks blocks;
  std::vector<Chunk> own_addends = {};  // pieces of the own block, to be reduced
  size_t num_reduced = 0;

  // `chunks` are what one peer sends to this rank. All send the same pieces of its block, so that
  // those of the first one say what there is to reduce.
  template <typename Chunks>
  void NoteAddends(const Chunks& chunks) {
    if (!own_addends.empty()) return;
    std::ranges::copy_if(chunks, std::back_inserter(own_addends), &Chunk::is_addend);
  }
  bool is_reduced() const { return num_reduced == own_addends.size(); }
  // The results of an all_reduce have to be there before they can be sent.
  bool HasResult(const Chunk& chunk) const {
    const bool is_result =
        call.kind == CollectiveKind::kAllReduce && chunk.destination == kToAllRanks;
    return !is_result || static_cast<size_t>(chunk.piece) < num_reduced;
  }
};

// ActiveCall: a QueuedCall with more to it.
template <typename ActiveCall>
class QueuedCollectives : public Collectives {
 protected:
  // Calls that may be started before the oldest is waited for.
  static constexpr size_t kMaxActiveCalls = 128;

  using Collectives::Collectives;

  absl::Status WaitImpl(int64_t index) final {
    RETURN_IF_ERROR(failure_);
    absl::Duration idle_since = absl::InfiniteDuration();
    while (num_completed_ <= index) {
      absl::StatusOr<bool> progress = Progress();
      if (!progress.ok()) return Fail(progress.status());
      if (*progress) {
        idle_since = absl::InfiniteDuration();
      } else if (num_completed_ <= index) {
        if (absl::Status status = Park(&idle_since); !status.ok()) return Fail(status);
      }
    }
    return absl::OkStatus();
  }

  // Does what can be done without waiting; true if that was anything.
  virtual absl::StatusOr<bool> Progress() = 0;
  // Returns once something may have changed; an error when waiting is in vain. `idle_since` is
  // when, by the steady clock, this rank last saw progress; infinite: just now.
  virtual absl::Status Park(absl::Duration* idle_since) = 0;
  // "rank 3 on node b"; for messages.
  virtual std::string PeerName(int peer) const = 0;

  // The call has its own block; what it exchanges with peers is for the caller to fill in.
  absl::StatusOr<ActiveCall*> Enqueue(const CollectiveCall& call) {
    RETURN_IF_ERROR(failure_);
    if (active_.size() >= kMaxActiveCalls) {
      return absl::ResourceExhaustedError(
          absl::StrCat("start of ", DescribeCall(call), ": ", active_.size(), " calls of group ",
                       group().name, " wait to be waited for; wait for the oldest first"));
    }
    const CallBlocks blocks(call, size());
    CopyOwnBlock(call, blocks, size(), rank());
    return &active_.emplace_back(
        ActiveCall{{.call = call, .index = num_started_++, .blocks = blocks}});
  }

  void CompleteOldest() {
    active_.pop_front();
    ++num_completed_;
  }

  // Adds up the next piece of the own block; `source_of` gives where a peer's part of it is.
  template <typename SourceOf>
  void ReduceNext(ActiveCall& call, SourceOf source_of) {
    const Chunk& piece = call.own_addends[call.num_reduced];
    std::vector<const std::byte*> sources(size());
    for (int source = 0; source < size(); ++source) {
      sources[source] =
          source == rank() ? ChunkSource(call.call, call.blocks, piece) : source_of(source);
    }
    Reduce(call.call.dtype, call.call.reduce, sources,
           ChunkDestination(call.call, call.blocks, piece, rank()),
           piece.bytes / SizeOf(call.call.dtype));
    ++call.num_reduced;
  }

  const absl::Status& failure() const { return failure_; }
  // The other ranks would only find out by waiting; they are told what happened here.
  absl::Status Fail(absl::Status status) {
    failure_ = std::move(status);
    Abort(failure_.message());
    return failure_;
  }

  absl::Status PeerError(int peer, absl::string_view what) const {
    return MarkPeerLost(
        absl::UnavailableError(absl::StrCat(CurrentCall(), ": ", PeerName(peer), " ", what)));
  }
  // `header` is what the peer says of its call.
  template <typename Header>
  absl::Status OtherCallError(int peer, const Header& header) const {
    const size_t kind = std::min<size_t>(header.kind, kAllCollectiveKinds.size() - 1);
    return absl::InternalError(absl::StrCat(
        CurrentCall(), ": ", PeerName(peer), " makes another call, ",
        KindName(static_cast<CollectiveKind>(kind)), " of ", header.call_bytes, " bytes (call ",
        header.call_index, "); all ranks of a group must make the same calls in the same order"));
  }
  absl::Status TimeoutError(const std::vector<int>& awaited, absl::Duration timeout) const {
    const std::string names = absl::StrJoin(awaited, ", ", [this](std::string* out, int peer) {
      absl::StrAppend(out, PeerName(peer));
    });
    return MarkPeerLost(absl::DeadlineExceededError(
        absl::StrCat(CurrentCall(), ": waited ", absl::FormatDuration(timeout), " for ", names)));
  }
  std::string CurrentCall() const {
    if (active_.empty()) return absl::StrCat("group ", group().name);
    return absl::StrCat(DescribeCall(active_.front().call), " (call ", active_.front().index,
                        " of group ", group().name, ")");
  }

  std::deque<ActiveCall> active_;

 private:
  int64_t num_started_ = 0;
  int64_t num_completed_ = 0;
  absl::Status failure_;
};

}  // namespace autosp
