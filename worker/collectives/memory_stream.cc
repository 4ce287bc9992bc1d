#include "worker/collectives/memory_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace autosp {
namespace {

// Copies are published in pieces, so that the other side copies one while the next is made.
constexpr int64_t kPieceBytes = 64 << 10;

// Calls `copy(ring offset, data, bytes)` for what of `parts` fits into `available`, in stretches
// that do not wrap; `position` is where the ring stands.
template <typename Copy>
int64_t ForStretches(absl::Span<const iovec> parts, int64_t position, int64_t available,
                     int64_t ring_bytes, const Copy& copy) {
  int64_t done = 0;
  for (const iovec& part : parts) {
    auto* data = static_cast<std::byte*>(part.iov_base);
    auto left = static_cast<int64_t>(part.iov_len);
    while (left > 0 && done < available) {
      const int64_t offset = (position + done) % ring_bytes;
      const int64_t bytes = std::min({left, available - done, ring_bytes - offset, kPieceBytes});
      copy(offset, data, bytes);
      data += bytes;
      left -= bytes;
      done += bytes;
    }
    if (left > 0) break;
  }
  return done;
}

}  // namespace

absl::StatusOr<SharedMemory> MemoryStream::MakeMemory(const std::string& name, int64_t ring_bytes) {
  return SharedMemory::Create(name, 2 * (static_cast<int64_t>(sizeof(RingState)) + ring_bytes));
}

MemoryStream::MemoryStream(SharedMemory memory, bool is_creator, PeerControl* control)
    : memory_(std::move(memory)),
      control_(control),
      ring_bytes_(memory_.bytes() / 2 - static_cast<int64_t>(sizeof(RingState))),
      out_(RingAt(is_creator ? 0 : 1)),
      in_(RingAt(is_creator ? 1 : 0)) {}

MemoryStream::Ring MemoryStream::RingAt(int index) const {
  std::byte* begin = memory_.memory() + index * (memory_.bytes() / 2);
  return {.state = reinterpret_cast<RingState*>(begin), .bytes = begin + sizeof(RingState)};
}

absl::StatusOr<int64_t> MemoryStream::Send(absl::Span<const iovec> parts) {
  RingState& state = *out_.state;
  const int64_t written = state.written.load(std::memory_order_relaxed);
  const int64_t room = ring_bytes_ - (written - state.read.load(std::memory_order_seq_cst));
  int64_t published = written;
  const auto copy = [&](int64_t offset, const std::byte* data, int64_t bytes) {
    std::memcpy(out_.bytes + offset, data, bytes);
    state.written.store(published += bytes, std::memory_order_seq_cst);
    WakeIfAsleep(state.reader_sleeps);
  };
  return ForStretches(parts, written, room, ring_bytes_, copy);
}

absl::StatusOr<int64_t> MemoryStream::Receive(absl::Span<const iovec> parts) {
  RingState& state = *in_.state;
  const int64_t read = state.read.load(std::memory_order_relaxed);
  const int64_t available = state.written.load(std::memory_order_seq_cst) - read;
  int64_t taken = read;
  const auto copy = [&](int64_t offset, std::byte* data, int64_t bytes) {
    std::memcpy(data, in_.bytes + offset, bytes);
    state.read.store(taken += bytes, std::memory_order_seq_cst);
    WakeIfAsleep(state.writer_sleeps);
  };
  return ForStretches(parts, read, available, ring_bytes_, copy);
}

// The change is published and the sleeper is looked for with sequentially consistent operations on
// both sides: either this sees that it sleeps, or its last look sees the change.
void MemoryStream::WakeIfAsleep(std::atomic<uint32_t>& sleeps) {
  if (sleeps.load(std::memory_order_seq_cst) == 0) return;
  if (sleeps.exchange(0, std::memory_order_seq_cst) != 0) control_->SendNews();
}

void MemoryStream::BeginSleep() {
  in_.state->reader_sleeps.store(1, std::memory_order_seq_cst);
  out_.state->writer_sleeps.store(1, std::memory_order_seq_cst);
}

void MemoryStream::EndSleep() {
  in_.state->reader_sleeps.store(0, std::memory_order_seq_cst);
  out_.state->writer_sleeps.store(0, std::memory_order_seq_cst);
}

}  // namespace autosp
