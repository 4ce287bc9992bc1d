#include "worker/nccl/nccl_collectives.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/clock.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "worker/nccl/nccl_calls.h"

namespace autosp {
namespace {

// Between two looks at a communicator that is in progress.
constexpr absl::Duration kSettlePause = absl::Microseconds(50);

}  // namespace

NcclCollectives::NcclCollectives(std::shared_ptr<NcclDevice> device,
                                 std::unique_ptr<Collectives> control, const NcclOptions& options)
    : Collectives(control->group(), control->rank()),
      device_(std::move(device)),
      control_(std::move(control)),
      options_(options) {}

absl::StatusOr<std::unique_ptr<NcclCollectives>> NcclCollectives::Open(
    std::shared_ptr<NcclDevice> device, std::unique_ptr<Collectives> control,
    const NcclOptions& options) {
  auto opened = std::unique_ptr<NcclCollectives>(
      new NcclCollectives(std::move(device), std::move(control), options));
  absl::Status status = opened->Init();
  if (!status.ok()) {
    status = WithContext(status, "NCCL communicator of group ", opened->group().name);
    // Peers that wait for this rank to connect learn why it does not come.
    opened->control_->Abort(status.message());
    if (opened->comm_ != nullptr)
      opened->device_->nccl().Abort(std::exchange(opened->comm_, nullptr));
    return status;
  }
  opened->watchdog_ = std::thread([group = opened.get()] { group->Watch(); });
  return opened;
}

absl::Status NcclCollectives::Init() {
  RETURN_IF_ERROR(device_->Use());
  ASSIGN_OR_RETURN(ready_, TakeEvent());
  NcclUniqueId id;
  if (rank() == 0) {
    RETURN_IF_ERROR(
        NcclStatus(device_->nccl(), device_->nccl().GetUniqueId(&id), nullptr, "ncclGetUniqueId"));
  }
  RETURN_IF_ERROR(control_->Broadcast(
      absl::MakeSpan(reinterpret_cast<std::byte*>(id.bytes.data()), id.bytes.size()),
      /*root=*/0));
  return Connect(id);
}

absl::Status NcclCollectives::Connect(const NcclUniqueId& id) {
  NcclApi& nccl = device_->nccl();
  const absl::Duration deadline = Clock::Real().Steady() + options_.init_timeout;
  NcclResult result = nccl.InitRank(&comm_, size(), id, rank());
  RETURN_IF_ERROR(NcclStatus(nccl, result, comm_, "ncclCommInitRankConfig"));
  while (result == NcclResult::kInProgress) {
    RETURN_IF_ERROR(
        NcclStatus(nccl, nccl.GetAsyncError(comm_, &result), comm_, "ncclCommGetAsyncError"));
    RETURN_IF_ERROR(NcclStatus(nccl, result, comm_, "ncclCommInitRankConfig"));
    if (result != NcclResult::kInProgress) break;
    RETURN_IF_ERROR(control_->CheckPeers());
    if (Clock::Real().Steady() > deadline) {
      return MarkPeerLost(DeadlineExceeded("not all ", size(), " ranks connected within ",
                                           absl::FormatDuration(options_.init_timeout)));
    }
    Clock::Real().Sleep(absl::Milliseconds(1));
  }
  return absl::OkStatus();
}

NcclCollectives::~NcclCollectives() {
  StopWatching();
  const absl::Status closed = Close();
  if (!closed.ok()) {
    LogWarning("closing group ", group().name, ": ", closed.ToString());
    control_->Abort(closed.message());
  }
  if (comm_ != nullptr) device_->nccl().Abort(comm_);
  for (const CudaEvent event : all_events_) {
    const absl::Status destroyed = device_->cuda().DestroyEvent(event);
    if (!destroyed.ok()) LogWarning("closing group ", group().name, ": ", destroyed.ToString());
  }
}

// Finalize waits for peers, which may be reading what this rank has sent, and Destroy frees it. Ok
// where the communicator is gone already.
absl::Status NcclCollectives::Close() {
  if (comm_ == nullptr) return absl::OkStatus();
  RETURN_IF_ERROR(device_->Use());
  RETURN_IF_ERROR(RetireComplete());
  if (!pending_.empty()) return Aborted(CurrentCall(), ": the rank has left before its end");
  NcclApi& nccl = device_->nccl();
  const absl::Duration deadline = Clock::Real().Steady() + options_.close_timeout;
  NcclResult result = nccl.Finalize(comm_);
  while (result == NcclResult::kInProgress) {
    RETURN_IF_ERROR(control_->CheckPeers());
    if (Clock::Real().Steady() > deadline) {
      return DeadlineExceeded("peers did not close their ends within ",
                              absl::FormatDuration(options_.close_timeout));
    }
    Clock::Real().Sleep(kSettlePause);
    RETURN_IF_ERROR(
        NcclStatus(nccl, nccl.GetAsyncError(comm_, &result), comm_, "ncclCommGetAsyncError"));
  }
  RETURN_IF_ERROR(NcclStatus(nccl, result, comm_, "ncclCommFinalize"));
  return NcclStatus(nccl, nccl.Destroy(std::exchange(comm_, nullptr)), nullptr, "ncclCommDestroy");
}

absl::Status NcclCollectives::StartImpl(const CollectiveCall& call) {
  RETURN_IF_ERROR(CheckNcclType(call));
  RETURN_IF_ERROR(device_->Use());
  RETURN_IF_ERROR(LimitCallsAhead());
  Lock lock(mutex_);
  RETURN_IF_ERROR(CheckLocked());
  absl::StatusOr<CudaEvent> done = TakeEvent();
  if (!done.ok()) return Fail(done.status());
  pending_.push_back({.index = num_started_++,
                      .call = call,
                      .done = *done,
                      .oldest_since = Clock::Real().Steady()});
  const absl::Status enqueued = Enqueue(call, *done, lock);
  if (!enqueued.ok()) return Fail(enqueued);
  pending_.back().is_enqueued = true;
  CountPayload(call.kind, NcclPayloadBytes(call, rank(), size()));
  return absl::OkStatus();
}

absl::Status NcclCollectives::Enqueue(const CollectiveCall& call, CudaEvent done, Lock& lock) {
  CudaApi& cuda = device_->cuda();
  RETURN_IF_ERROR(cuda.RecordEvent(ready_, device_->compute_stream()));
  RETURN_IF_ERROR(cuda.WaitEvent(device_->stream(), ready_));
  RETURN_IF_ERROR(EnqueueOnNccl(*device_, comm_, rank(), size(), call));
  // Until then the kernels may not be on the stream, and the event would come before them.
  RETURN_IF_ERROR(Settle(lock));
  return cuda.RecordEvent(done, device_->stream());
}

// The first call between two ranks connects them, which takes a while, and for ever when the peer
// is gone: the lock is open meanwhile for the watchdog.
absl::Status NcclCollectives::Settle(Lock& lock) {
  while (true) {
    NcclResult result = NcclResult::kSuccess;
    RETURN_IF_ERROR(NcclStatus(device_->nccl(), device_->nccl().GetAsyncError(comm_, &result),
                               comm_, "ncclCommGetAsyncError"));
    RETURN_IF_ERROR(NcclStatus(device_->nccl(), result, comm_, "NCCL"));
    if (result != NcclResult::kInProgress) return absl::OkStatus();
    lock.unlock();
    Clock::Real().Sleep(kSettlePause);
    lock.lock();
    RETURN_IF_ERROR(failure_);
  }
}

// The queues of a device are finite; a launch that finds one full would block under the lock.
absl::Status NcclCollectives::LimitCallsAhead() {
  CudaEvent oldest = nullptr;
  {
    const Lock lock(mutex_);
    RETURN_IF_ERROR(failure_);
    if (pending_.size() < static_cast<size_t>(options_.max_calls_ahead)) return absl::OkStatus();
    oldest = pending_.front().done;
  }
  const absl::Status complete = device_->cuda().SynchronizeEvent(oldest);
  const Lock lock(mutex_);
  RETURN_IF_ERROR(failure_);
  if (!complete.ok()) return Fail(complete);
  return RetireComplete();
}

absl::Status NcclCollectives::WaitImpl(int64_t index) {
  RETURN_IF_ERROR(device_->Use());
  CudaEvent done = nullptr;
  bool holds_host = false;
  {
    const Lock lock(mutex_);
    RETURN_IF_ERROR(CheckLocked());
    const auto found = std::ranges::find(pending_, index, &PendingCall::index);
    // The host has seen its end, so what is enqueued from now on comes after it.
    if (found == pending_.end()) return absl::OkStatus();
    done = found->done;
    holds_host = found->call.kind == CollectiveKind::kBarrier;
  }
  // Only this thread uses an event again, so `done` stays what it is without the lock.
  const absl::Status waited = holds_host
                                  ? device_->cuda().SynchronizeEvent(done)
                                  : device_->cuda().WaitEvent(device_->compute_stream(), done);
  const Lock lock(mutex_);
  RETURN_IF_ERROR(failure_);
  return waited.ok() ? absl::OkStatus() : Fail(waited);
}

absl::Status NcclCollectives::Synchronize() {
  RETURN_IF_ERROR(device_->Use());
  CudaEvent last = nullptr;
  {
    const Lock lock(mutex_);
    RETURN_IF_ERROR(CheckLocked());
    if (pending_.empty()) return absl::OkStatus();
    last = pending_.back().done;
  }
  const absl::Status complete = device_->cuda().SynchronizeEvent(last);
  const Lock lock(mutex_);
  RETURN_IF_ERROR(failure_);
  if (!complete.ok()) return Fail(complete);
  RETURN_IF_ERROR(RetireComplete());
  return CheckLocked();
}

absl::StatusOr<CudaEvent> NcclCollectives::TakeEvent() {
  if (!free_events_.empty()) {
    const CudaEvent event = free_events_.back();
    free_events_.pop_back();
    return event;
  }
  ASSIGN_OR_RETURN(const CudaEvent event, device_->cuda().CreateEvent());
  all_events_.push_back(event);
  return event;
}

}  // namespace autosp
