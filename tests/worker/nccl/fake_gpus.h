// Ranks on fake devices: what a test needs to run anything over NCCL's code path.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/worker/nccl/fake_cuda.h"
#include "tests/worker/nccl/fake_nccl.h"
#include "worker/collectives/collectives.h"
#include "worker/nccl/nccl_collectives.h"

namespace autosp {

// Each rank has the device of its number, and computes on the null stream, as CPU tensors do.
class FakeGpus {
 public:
  FakeGpus() : nccl_(cuda_) {}

  FakeCuda& cuda() { return cuda_; }
  FakeNccl& nccl() { return nccl_; }

  // On `control`, as the group's member that it is of; on the thread of the rank.
  absl::StatusOr<std::unique_ptr<Collectives>> OpenNccl(int64_t global_rank,
                                                        std::unique_ptr<Collectives> control,
                                                        const NcclOptions& options = {});
  std::unique_ptr<Collectives> Stage(int64_t global_rank, std::unique_ptr<Collectives> host);

  // All that was wrong or was left. Once every rank is gone.
  std::vector<std::string> Complaints() const;

 private:
  FakeCuda cuda_;
  FakeNccl nccl_;
  std::mutex mutex_;
  std::map<int64_t, std::weak_ptr<NcclDevice>> devices_;  // by rank, shared by its groups
};

// Runs `body` as each rank of a group "world:0", in threads, with an end of a group between
// threads.
void RunAsRanks(int size,
                const std::function<void(int rank, std::unique_ptr<Collectives> control)>& body);

}  // namespace autosp
