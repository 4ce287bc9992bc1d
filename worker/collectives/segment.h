// The memory that the members of a group share, and how it is laid out.
//
//   header | rank slots [P] | reader cursors [P][P] | chunk headers [P][K] | chunks [P][K]
//
// Each rank owns a ring of K chunks: its outgoing stream. Stream position p is at ring index p mod
// K. `produced` says how far the owner has written, cursor (source, reader) how far a reader has
// read; the owner may write position p once every reader's cursor is past p - K. The same layout
// serves processes (POSIX shared memory) and the threads of one process (heap).
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/strings/string_view.h"

namespace autosp {

inline constexpr size_t kCacheLine = 64;
inline constexpr uint64_t kSegmentMagic = 0x3147455350535541;  // "AUSPSEG1"
inline constexpr size_t kMaxAbortReason = 400;

enum class SlotState : uint32_t { kAbsent, kAttached, kLeft };

struct SegmentGeometry {
  int64_t group_size = 1;
  int64_t chunk_bytes = 0;
  int64_t chunks_per_ring = 0;

  int64_t TotalBytes() const;
  friend bool operator==(const SegmentGeometry&, const SegmentGeometry&) = default;
};

struct alignas(kCacheLine) SegmentHeader {
  std::atomic<uint64_t> magic;  // written last by the creator
  int64_t generation;
  uint64_t group_digest;  // of the group's name and ranks
  int64_t group_size;
  int64_t chunk_bytes;
  int64_t chunks_per_ring;
  std::atomic<int32_t> num_attached;
  std::atomic<int32_t> abort_rank;  // index of the rank that aborted, plus 1; 0: none
};

struct alignas(kCacheLine) RankSlot {
  std::atomic<SlotState> state;
  std::atomic<int32_t> pid;
  std::atomic<uint32_t> abort_claimed;
  char abort_reason[kMaxAbortReason];
  // A rank that waits sleeps on its own doorbell; who changes something for it rings.
  alignas(kCacheLine) std::atomic<uint32_t> doorbell;
  std::atomic<uint32_t> is_sleeping;
  alignas(kCacheLine) std::atomic<int64_t> produced;
};

struct alignas(kCacheLine) ReaderCursor {
  std::atomic<int64_t> position;
};

// Says which call a chunk belongs to, so that ranks that disagree notice.
struct alignas(kCacheLine) ChunkHeader {
  int64_t call_index;
  int64_t call_bytes;
  int64_t payload_bytes;
  uint8_t kind;
  uint8_t dtype;
  uint8_t reduce;
};

class Segment {
 public:
  // Owns nothing: `memory` is zeroed or written by another Segment, and outlives this.
  Segment(std::byte* memory, const SegmentGeometry& geometry);
  virtual ~Segment() = default;

  // Makes a segment for the threads of this process.
  static std::shared_ptr<Segment> OnHeap(const SegmentGeometry& geometry);

  const SegmentGeometry& geometry() const { return geometry_; }
  SegmentHeader& header() const { return *reinterpret_cast<SegmentHeader*>(memory_); }
  RankSlot& slot(int rank) const;
  std::atomic<int64_t>& cursor(int source, int reader) const;
  ChunkHeader& chunk_header(int source, int64_t position) const;
  std::byte* chunk(int source, int64_t position) const;

  // Wakes `rank` if it sleeps. Call it after the change that it may wait for.
  void Ring(int rank) const;
  // Records the first abort of the group and wakes everybody. Safe in a signal handler.
  void Abort(int rank, absl::string_view reason) const;

 private:
  std::byte* memory_;
  SegmentGeometry geometry_;
};

}  // namespace autosp
