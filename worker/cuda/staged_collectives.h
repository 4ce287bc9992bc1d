// Collectives on device memory by way of the host: for GPUs without NCCL, and for virtual ranks
// that share one GPU, where NCCL refuses a second rank.
//
// Start copies to pinned memory on the compute stream, waits for it, and starts the call of the
// group below on the copies; Wait ends that call and copies back on the compute stream. So the
// host waits for all computing before a call. What was waited for is ordered before what the
// compute stream does next, and reductions have the bits of the group below.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "worker/collectives/collectives.h"
#include "worker/cuda/cuda_api.h"

namespace autosp {

class StagedCollectives final : public Collectives {
 public:
  // Requires: `compute_stream` gives the same stream at every call, and `cuda` outlives this.
  StagedCollectives(CudaApi& cuda, int device, std::function<CudaStream()> compute_stream,
                    std::unique_ptr<Collectives> host);
  // Waits for copies that are under way.
  ~StagedCollectives() override;

  absl::Status Synchronize() override;
  absl::Status CheckPeers() override { return host_->CheckPeers(); }
  void Abort(absl::string_view reason) override { host_->Abort(reason); }

 protected:
  absl::Status StartImpl(const CollectiveCall& call) override;
  absl::Status WaitImpl(int64_t index) override;

 private:
  struct Buffer {
    std::byte* memory = nullptr;
    int64_t capacity = 0;
  };
  // A call between its start and the wait that completes it.
  struct PendingCall {
    int64_t index = 0;
    CollectiveCall call;
    CollectiveHandle host_handle = {};
    Buffer send = {};  // none where the call works in place
    Buffer recv = {};
  };

  absl::Status StageIn(const CollectiveCall& call, PendingCall& pending);
  absl::Status CopyBack(PendingCall& pending);
  absl::StatusOr<Buffer> Take(int64_t bytes);
  void GiveBack(Buffer& buffer);
  // Counts what the group below has moved since the last look.
  void CountHostPayload();

  CudaApi& cuda_;
  const int device_;
  const std::function<CudaStream()> compute_stream_;
  std::unique_ptr<Collectives> host_;
  std::deque<PendingCall> pending_;
  std::vector<Buffer> free_;  // smallest first
  CollectiveCounters counted_;
  int64_t num_started_ = 0;
};

}  // namespace autosp
