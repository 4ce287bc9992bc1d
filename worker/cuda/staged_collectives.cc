#include "worker/cuda/staged_collectives.h"

#include <algorithm>
#include <utility>

#include "common/log.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

// Small buffers are of one size, so that they serve each other's calls.
constexpr int64_t kMinBufferBytes = 64 << 10;

int64_t SendBytes(const CollectiveCall& call) { return static_cast<int64_t>(call.send.size()); }
int64_t RecvBytes(const CollectiveCall& call) { return static_cast<int64_t>(call.recv.size()); }

}  // namespace

StagedCollectives::StagedCollectives(CudaApi& cuda, int device,
                                     std::function<CudaStream()> compute_stream,
                                     std::unique_ptr<Collectives> host)
    : Collectives(host->group(), host->rank()),
      cuda_(cuda),
      device_(device),
      compute_stream_(std::move(compute_stream)),
      host_(std::move(host)) {}

StagedCollectives::~StagedCollectives() {
  absl::Status status = Synchronize();
  host_.reset();  // it may hold on to the buffers of calls that were not waited for
  for (PendingCall& call : pending_) {
    GiveBack(call.send);
    GiveBack(call.recv);
  }
  for (const Buffer& buffer : free_) status.Update(cuda_.FreeHost(buffer.memory));
  if (!status.ok()) LogWarning("closing group ", group().name, ": ", status.ToString());
}

absl::Status StagedCollectives::Synchronize() {
  RETURN_IF_ERROR(cuda_.SetDevice(device_));
  return cuda_.SynchronizeStream(compute_stream_());
}

absl::Status StagedCollectives::StartImpl(const CollectiveCall& call) {
  PendingCall pending{.index = num_started_, .call = call};
  const absl::Status staged = StageIn(call, pending);
  if (staged.ok()) {
    CollectiveCall host_call = call;
    const Buffer& send = pending.send.memory == nullptr ? pending.recv : pending.send;
    host_call.send = {send.memory, call.send.size()};
    host_call.recv = {pending.recv.memory, call.recv.size()};
    const auto handle = host_->Start(host_call);
    CountHostPayload();
    if (handle.ok()) {
      pending.host_handle = *handle;
      pending_.push_back(std::move(pending));
      ++num_started_;
      return absl::OkStatus();
    }
    GiveBack(pending.send);
    GiveBack(pending.recv);
    return handle.status();
  }
  GiveBack(pending.send);
  GiveBack(pending.recv);
  return WithContext(staged, "staging of ", DescribeCall(call));
}

// Copies back of earlier calls come before on the same stream: once it is synchronised, every
// buffer that was given back may be written by the host.
absl::Status StagedCollectives::StageIn(const CollectiveCall& call, PendingCall& pending) {
  RETURN_IF_ERROR(cuda_.SetDevice(device_));
  const bool is_in_place = call.kind == CollectiveKind::kAllReduce;
  ASSIGN_OR_RETURN(pending.recv, Take(RecvBytes(call)));
  if (!is_in_place) {
    ASSIGN_OR_RETURN(pending.send, Take(SendBytes(call)));
  }
  const CudaStream stream = compute_stream_();
  if (SendBytes(call) > 0) {
    std::byte* const to = is_in_place ? pending.recv.memory : pending.send.memory;
    RETURN_IF_ERROR(cuda_.CopyAsync(to, call.send.data(), SendBytes(call), stream));
  } else if (call.kind == CollectiveKind::kBroadcast && call.root == rank() &&
             RecvBytes(call) > 0) {
    RETURN_IF_ERROR(
        cuda_.CopyAsync(pending.recv.memory, call.recv.data(), RecvBytes(call), stream));
  }
  return cuda_.SynchronizeStream(stream);
}

// Calls complete in the order of their starts: results of earlier ones come back as well.
absl::Status StagedCollectives::WaitImpl(int64_t index) {
  RETURN_IF_ERROR(cuda_.SetDevice(device_));
  while (!pending_.empty() && pending_.front().index <= index) {
    PendingCall& oldest = pending_.front();
    const absl::Status waited = host_->Wait(oldest.host_handle);
    CountHostPayload();
    RETURN_IF_ERROR(waited);
    RETURN_IF_ERROR(WithContext(CopyBack(oldest), "staging of ", DescribeCall(oldest.call)));
    pending_.pop_front();
  }
  return absl::OkStatus();
}

absl::Status StagedCollectives::CopyBack(PendingCall& pending) {
  const CollectiveCall& call = pending.call;
  if (RecvBytes(call) > 0) {
    RETURN_IF_ERROR(
        cuda_.CopyAsync(call.recv.data(), pending.recv.memory, RecvBytes(call), compute_stream_()));
  }
  GiveBack(pending.send);
  GiveBack(pending.recv);
  return absl::OkStatus();
}

// The smallest that is large enough.
absl::StatusOr<StagedCollectives::Buffer> StagedCollectives::Take(int64_t bytes) {
  if (bytes == 0) return Buffer();
  const auto fit = std::ranges::lower_bound(free_, bytes, {}, &Buffer::capacity);
  if (fit != free_.end()) {
    const Buffer buffer = *fit;
    free_.erase(fit);
    return buffer;
  }
  const int64_t capacity = std::max(bytes, kMinBufferBytes);
  ASSIGN_OR_RETURN(void* const memory, cuda_.AllocateHost(capacity));
  return Buffer{.memory = static_cast<std::byte*>(memory), .capacity = capacity};
}

void StagedCollectives::GiveBack(Buffer& buffer) {
  if (buffer.memory == nullptr) return;
  const auto place = std::ranges::lower_bound(free_, buffer.capacity, {}, &Buffer::capacity);
  free_.insert(place, std::exchange(buffer, Buffer()));
}

void StagedCollectives::CountHostPayload() {
  const CollectiveCounters& now = host_->counters();
  for (const CollectiveKind kind : kAllCollectiveKinds) {
    CountPayload(kind, now.of(kind).payload_bytes - counted_.of(kind).payload_bytes);
  }
  counted_ = now;
}

}  // namespace autosp
