// How an NCCL group finds out that something is wrong, and what it does about it.

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/collectives/futex.h"
#include "worker/nccl/nccl_calls.h"
#include "worker/nccl/nccl_collectives.h"

namespace autosp {
namespace {

constexpr int64_t kMaxSleepMs = 50;

}  // namespace

void NcclCollectives::Watch() {
  const int64_t sleep_ms =
      std::clamp<int64_t>(absl::ToInt64Milliseconds(options_.timeout) / 4, 1, kMaxSleepMs);
  absl::Status status = device_->Use();
  while (!is_closing_.load()) {
    const uint32_t alarm = alarm_.load();
    {
      const Lock lock(mutex_);
      if (status.ok()) status = CheckLocked();
      if (status.ok()) status = CheckOldest();
      if (!status.ok()) {
        if (failure_.ok()) Fail(std::move(status)).IgnoreError();
        return;
      }
    }
    if (!is_closing_.load()) FutexWait(alarm_, alarm, sleep_ms);
  }
}

void NcclCollectives::StopWatching() {
  is_closing_.store(true);
  alarm_.fetch_add(1);
  FutexWakeAll(alarm_);
  if (watchdog_.joinable()) watchdog_.join();
}

absl::Status NcclCollectives::CheckLocked() {
  RETURN_IF_ERROR(failure_);
  if (abort_requested_.load()) return Fail(Aborted(abort_reason_.data()));
  NcclResult result = NcclResult::kSuccess;
  absl::Status status = NcclStatus(device_->nccl(), device_->nccl().GetAsyncError(comm_, &result),
                                   comm_, "ncclCommGetAsyncError");
  status.Update(NcclStatus(device_->nccl(), result, comm_, "NCCL"));
  return status.ok() ? status : Fail(status);
}

// A peer may leave as soon as its own part is done, so calls that are complete are put away before
// anyone is missed, and once more after.
absl::Status NcclCollectives::CheckOldest() {
  RETURN_IF_ERROR(RetireComplete());
  if (pending_.empty()) return absl::OkStatus();
  const absl::Status peers = control_->CheckPeers();
  RETURN_IF_ERROR(RetireComplete());
  if (pending_.empty()) return absl::OkStatus();
  if (!peers.ok()) return Fail(peers);
  if (Clock::Real().Steady() - pending_.front().oldest_since < options_.timeout) {
    return absl::OkStatus();
  }
  return Fail(MarkPeerLost(DeadlineExceeded(
      "not complete after ", absl::FormatDuration(options_.timeout),
      "; a rank of the group does not take part, or this one still computes what comes before")));
}

absl::Status NcclCollectives::RetireComplete() {
  while (!pending_.empty() && pending_.front().is_enqueued) {
    const absl::StatusOr<bool> done = device_->cuda().QueryEvent(pending_.front().done);
    if (!done.ok()) return Fail(done.status());
    if (!*done) break;
    free_events_.push_back(pending_.front().done);
    pending_.pop_front();
    if (!pending_.empty()) pending_.front().oldest_since = Clock::Real().Steady();
  }
  return absl::OkStatus();
}

absl::Status NcclCollectives::CheckPeers() {
  const Lock lock(mutex_);
  return CheckLocked();
}

// The failure is noted before the kernels end, so that whoever they held up finds it.
absl::Status NcclCollectives::Fail(absl::Status status) {
  if (!failure_.ok()) return failure_;
  failure_ = WithContext(status, CurrentCall());
  control_->Abort(failure_.message());
  if (comm_ != nullptr) device_->nccl().Abort(std::exchange(comm_, nullptr));
  return failure_;
}

std::string NcclCollectives::CurrentCall() const {
  if (pending_.empty()) return absl::StrCat("group ", group().name);
  return absl::StrCat(DescribeCall(pending_.front().call), " (call ", pending_.front().index,
                      " of group ", group().name, ")");
}

void NcclCollectives::Abort(absl::string_view reason) {
  if (abort_claimed_.exchange(true)) return;
  const size_t length = std::min(reason.size(), abort_reason_.size() - 1);
  std::memcpy(abort_reason_.data(), reason.data(), length);
  abort_requested_.store(true);
  control_->Abort(reason);
  alarm_.fetch_add(1);
  FutexWakeAll(alarm_);
}

}  // namespace autosp
