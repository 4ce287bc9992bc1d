// Collectives between GPUs through NCCL: one communicator per group.
//
// Start makes the communication stream wait for what the compute stream has enqueued so far, and
// enqueues the call behind it. Wait makes the compute stream wait for the call. Neither waits for
// the device, so that communication overlaps with computing and the host runs ahead; only a barrier
// holds the host. Sums are added in NCCL's order, which is the same on every run of the same shape
// and devices, but not that of ranks.
//
// NCCL alone does not say that a peer is gone: its kernels wait on. So each group has a *control*
// group beside it, which rank 0 uses to hand out NCCL's id, and a watchdog thread. The watchdog
// looks at the communicator, at the peers through the control group, and at how long the oldest
// call takes. When something is wrong, it fails the group, tells the peers through the control
// group, and aborts the communicator, which ends the kernels: the host, which may be waiting for
// the device, goes on and finds the error in its next call, or in Synchronize. What the device
// computed after a failure is garbage, so results count only after Synchronize.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "worker/collectives/collectives.h"
#include "worker/nccl/nccl_device.h"

namespace autosp {

struct NcclOptions {
  // Longest time for one call, from when all earlier ones were complete. It includes what the rank
  // itself still computes before the call.
  absl::Duration timeout = absl::Minutes(10);
  // Until all ranks have made the communicator, and for taking it down at the end.
  absl::Duration init_timeout = absl::Minutes(2);
  absl::Duration close_timeout = absl::Seconds(10);
  // Calls that may be under way on the device before Start waits for the oldest.
  int max_calls_ahead = 128;
};

class NcclCollectives final : public Collectives {
 public:
  // Returns when all members have opened theirs. Group and rank are those of `control`, which may
  // be of any kind and is used for nothing else.
  static absl::StatusOr<std::unique_ptr<NcclCollectives>> Open(std::shared_ptr<NcclDevice> device,
                                                               std::unique_ptr<Collectives> control,
                                                               const NcclOptions& options = {});
  // Takes the communicator down together with the peers where all calls are complete; else the
  // peers get an error.
  ~NcclCollectives() override;

  absl::Status Synchronize() override;
  absl::Status CheckPeers() override;
  void Abort(absl::string_view reason) override;

 protected:
  absl::Status StartImpl(const CollectiveCall& call) override;
  absl::Status WaitImpl(int64_t index) override;

 private:
  // A call that may still be under way on the device.
  struct PendingCall {
    int64_t index = 0;
    CollectiveCall call;  // its buffers may be gone
    CudaEvent done = nullptr;
    bool is_enqueued = false;
    absl::Duration oldest_since = {};  // by the steady clock: when all earlier ones were complete
  };
  using Lock = std::unique_lock<std::mutex>;

  NcclCollectives(std::shared_ptr<NcclDevice> device, std::unique_ptr<Collectives> control,
                  const NcclOptions& options);
  absl::Status Init();
  absl::Status Connect(const NcclUniqueId& id);
  absl::Status Close();

  absl::Status Enqueue(const CollectiveCall& call, CudaEvent done, Lock& lock);
  // Waits until the communicator is in progress no more.
  absl::Status Settle(Lock& lock);
  absl::Status LimitCallsAhead();
  absl::StatusOr<CudaEvent> TakeEvent();
  // The first error of the group, or what is found wrong with it now.
  absl::Status CheckLocked();
  absl::Status RetireComplete();
  absl::Status CheckOldest();
  absl::Status Fail(absl::Status status);
  std::string CurrentCall() const;

  void Watch();
  void StopWatching();

  const std::shared_ptr<NcclDevice> device_;
  const std::unique_ptr<Collectives> control_;
  const NcclOptions options_;

  // Guards all below it but the atomics. Held for calls into NCCL, none of which blocks.
  std::mutex mutex_;
  NcclComm comm_ = nullptr;
  absl::Status failure_;
  std::deque<PendingCall> pending_;
  int64_t num_started_ = 0;
  CudaEvent ready_ = nullptr;  // what the compute stream has enqueued before a call
  std::vector<CudaEvent> all_events_;
  std::vector<CudaEvent> free_events_;

  // Abort may run in a signal handler, so it only leaves a note for the watchdog.
  std::atomic<bool> abort_claimed_ = false;
  std::atomic<bool> abort_requested_ = false;
  std::array<char, 400> abort_reason_{};
  std::atomic<bool> is_closing_ = false;
  std::atomic<uint32_t> alarm_ = 0;  // the watchdog sleeps on it
  std::thread watchdog_;
};

}  // namespace autosp
