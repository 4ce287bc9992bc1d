#include "worker/collectives/segment.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "common/round_up.h"
#include "worker/collectives/futex.h"

namespace autosp {
namespace {

constexpr int64_t kPage = 4096;

// Offsets of the parts.
int64_t SlotsBegin() { return sizeof(SegmentHeader); }
int64_t CursorsBegin(const SegmentGeometry& g) {
  return SlotsBegin() + g.group_size * static_cast<int64_t>(sizeof(RankSlot));
}
int64_t ChunkHeadersBegin(const SegmentGeometry& g) {
  return CursorsBegin(g) + g.group_size * g.group_size * static_cast<int64_t>(sizeof(ReaderCursor));
}
int64_t ChunksBegin(const SegmentGeometry& g) {
  const int64_t headers = g.group_size * g.chunks_per_ring;
  return RoundUp(ChunkHeadersBegin(g) + headers * static_cast<int64_t>(sizeof(ChunkHeader)), kPage);
}

// Frees what OnHeap has allocated.
class HeapSegment final : public Segment {
 public:
  HeapSegment(std::byte* memory, const SegmentGeometry& geometry)
      : Segment(memory, geometry), memory_(memory) {}
  ~HeapSegment() override { std::free(memory_); }

 private:
  std::byte* memory_;
};

}  // namespace

int64_t SegmentGeometry::TotalBytes() const {
  return ChunksBegin(*this) + group_size * chunks_per_ring * chunk_bytes;
}

Segment::Segment(std::byte* memory, const SegmentGeometry& geometry)
    : memory_(memory), geometry_(geometry) {}

std::shared_ptr<Segment> Segment::OnHeap(const SegmentGeometry& geometry) {
  const int64_t bytes = RoundUp(geometry.TotalBytes(), kPage);
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kPage, bytes));
  // Only the control part must be zero; chunks are written before they are read.
  std::memset(memory, 0, ChunksBegin(geometry));
  return std::make_shared<HeapSegment>(memory, geometry);
}

RankSlot& Segment::slot(int rank) const {
  return reinterpret_cast<RankSlot*>(memory_ + SlotsBegin())[rank];
}

std::atomic<int64_t>& Segment::cursor(int source, int reader) const {
  auto* cursors = reinterpret_cast<ReaderCursor*>(memory_ + CursorsBegin(geometry_));
  return cursors[source * geometry_.group_size + reader].position;
}

ChunkHeader& Segment::chunk_header(int source, int64_t position) const {
  auto* headers = reinterpret_cast<ChunkHeader*>(memory_ + ChunkHeadersBegin(geometry_));
  return headers[source * geometry_.chunks_per_ring + position % geometry_.chunks_per_ring];
}

std::byte* Segment::chunk(int source, int64_t position) const {
  const int64_t index = source * geometry_.chunks_per_ring + position % geometry_.chunks_per_ring;
  return memory_ + ChunksBegin(geometry_) + index * geometry_.chunk_bytes;
}

// The change is published and the sleeper is looked for with sequentially consistent operations on
// both sides: either this sees `is_sleeping`, or the sleeper's last check sees the change.
void Segment::Ring(int rank) const {
  RankSlot& slot = this->slot(rank);
  if (slot.is_sleeping.load(std::memory_order_seq_cst) == 0) return;
  slot.doorbell.fetch_add(1, std::memory_order_seq_cst);
  FutexWakeAll(slot.doorbell);
}

void Segment::Abort(int rank, absl::string_view reason) const {
  RankSlot& own = slot(rank);
  if (own.abort_claimed.exchange(1) != 0) return;
  const size_t length = std::min(reason.size(), kMaxAbortReason - 1);
  std::memcpy(own.abort_reason, reason.data(), length);
  own.abort_reason[length] = '\0';
  int32_t none = 0;
  header().abort_rank.compare_exchange_strong(none, rank + 1, std::memory_order_seq_cst);
  for (int peer = 0; peer < geometry_.group_size; ++peer) {
    slot(peer).doorbell.fetch_add(1, std::memory_order_seq_cst);
    FutexWakeAll(slot(peer).doorbell);
  }
}

}  // namespace autosp
