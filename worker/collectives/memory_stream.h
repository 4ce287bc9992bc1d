// A PeerStream between two processes of one host, through memory that they share: a ring of bytes
// for each direction.
//
//   creator's bytes: state, ring | attacher's bytes: state, ring
//
// The one who writes copies in and moves `written`, the one who reads copies out and moves `read`.
// Who is about to sleep says so in the state; the other one then sends a notice over the control
// connection, which ends the sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "worker/collectives/peer_control.h"
#include "worker/collectives/peer_stream.h"
#include "worker/collectives/shared_memory.h"

namespace autosp {

class MemoryStream final : public PeerStream {
 public:
  static constexpr int64_t kDefaultRingBytes = 1 << 20;

  // Requires: `memory` is as MakeMemory or SharedMemory::Attach gave it; `control` leads to the
  // peer that has it as well, and outlives the stream.
  MemoryStream(SharedMemory memory, bool is_creator, PeerControl* control);

  // `ring_bytes` is a multiple of 64.
  static absl::StatusOr<SharedMemory> MakeMemory(const std::string& name,
                                                 int64_t ring_bytes = kDefaultRingBytes);

  absl::StatusOr<int64_t> Send(absl::Span<const iovec> parts) override;
  absl::StatusOr<int64_t> Receive(absl::Span<const iovec> parts) override;
  int fd() const override { return -1; }
  void BeginSleep() override;
  void EndSleep() override;

 private:
  struct RingState {
    alignas(64) std::atomic<int64_t> written;
    std::atomic<uint32_t> reader_sleeps;
    alignas(64) std::atomic<int64_t> read;
    std::atomic<uint32_t> writer_sleeps;
  };
  struct Ring {
    RingState* state = nullptr;
    std::byte* bytes = nullptr;
  };

  Ring RingAt(int index) const;
  void WakeIfAsleep(std::atomic<uint32_t>& sleeps);

  const SharedMemory memory_;
  PeerControl* const control_;
  int64_t ring_bytes_ = 0;
  Ring out_;
  Ring in_;
};

}  // namespace autosp
