#include "tests/worker/nccl/fake_gpus.h"

#include <utility>

#include "common/status_macros.h"
#include "worker/collectives/in_process_collectives.h"
#include "worker/cuda/staged_collectives.h"

namespace autosp {
namespace {

CudaStream NullStream() { return nullptr; }

}  // namespace

absl::StatusOr<std::unique_ptr<Collectives>> FakeGpus::OpenNccl(
    int64_t global_rank, std::unique_ptr<Collectives> control, const NcclOptions& options) {
  std::shared_ptr<NcclDevice> device;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    device = devices_[global_rank].lock();
    if (device == nullptr) {
      ASSIGN_OR_RETURN(device,
                       NcclDevice::Open(cuda_, nccl_, static_cast<int>(global_rank), NullStream));
      devices_[global_rank] = device;
    }
  }
  return NcclCollectives::Open(std::move(device), std::move(control), options);
}

std::unique_ptr<Collectives> FakeGpus::Stage(int64_t global_rank,
                                             std::unique_ptr<Collectives> host) {
  return std::make_unique<StagedCollectives>(cuda_, static_cast<int>(global_rank), NullStream,
                                             std::move(host));
}

std::vector<std::string> FakeGpus::Complaints() const {
  std::vector<std::string> complaints = cuda_.Violations();
  for (const std::string& leak : cuda_.Leaks()) complaints.push_back("left: " + leak);
  for (const std::string& leak : nccl_.Leaks()) complaints.push_back("left: " + leak);
  return complaints;
}

void RunAsRanks(int size,
                const std::function<void(int rank, std::unique_ptr<Collectives> control)>& body) {
  ProcessGroup group{.name = "world:0", .ranks = {}};
  for (int rank = 0; rank < size; ++rank) group.ranks.push_back(rank);
  auto ends =
      MakeInProcessCollectives(group, {.ring = {.timeout = absl::Seconds(20), .spin_rounds = 10}});
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] { body(rank, std::move(ends[rank])); });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace autosp
