// One GPU as libtorch sees it: the memory that its caching allocator holds, and threads that work
// on it. Builds without CUDA have no GPU to open.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/collectives/collectives.h"
#include "worker/executor/environment.h"

namespace autosp {

class NcclDevice;

// Thread-compatible; figures are those of the whole process.
class TorchGpu final : public Gpu {
 public:
  // `budget_bytes` of the device may be allocated; 0: all of it. Errors: no such device, a driver
  // that libtorch cannot use, or a build without CUDA.
  static absl::StatusOr<std::unique_ptr<TorchGpu>> Open(int index, int64_t budget_bytes);

  struct Info {
    std::string name;
    int64_t memory_bytes = 0;
  };
  // Every device that the driver shows to this process; an error where there is none.
  static absl::StatusOr<std::vector<Info>> List();

  c10::Device device() const { return {c10::DeviceType::CUDA, static_cast<int8_t>(index_)}; }

  // Makes the device the calling thread's. Each thread that runs ops calls it once.
  void Enter() const;
  // The stream on which the calling thread's ops run, as CudaStream of worker/cuda/cuda_api.h.
  void* CurrentStream() const;

  // "NVIDIA H100 80GB HBM3, 79.1 GiB, compute capability 9.0"
  std::string Describe() const;

  // A group between GPUs, through NCCL, of the ranks of `control`, a group of hosts' processes that
  // is used for nothing else afterwards. All members call it in the same order of groups.
  absl::StatusOr<std::unique_ptr<Collectives>> OpenGroup(std::unique_ptr<Collectives> control);

  int64_t live_bytes() const override;
  int64_t peak_bytes() const override;
  void ResetPeak() override;
  void Synchronize() override;

 private:
  explicit TorchGpu(int index) : index_(index) {}

  const int index_;
  std::shared_ptr<NcclDevice> nccl_;  // made with the first group
};

// Where a rank computes: on `gpu`, or, where it is null, on the CPU.
inline c10::Device ComputeDeviceOf(const TorchGpu* gpu) {
  return gpu == nullptr ? c10::Device(c10::DeviceType::CPU) : gpu->device();
}

// Lets virtual ranks that share `gpu` exchange device memory through `host`, a group of threads.
// Each rank calls it on its own end.
absl::StatusOr<std::unique_ptr<Collectives>> ShareGpu(TorchGpu& gpu,
                                                      std::unique_ptr<Collectives> host);

// "cuda:1" -> 1. "cpu" and everything else is an error.
absl::StatusOr<int> ParseCudaDevice(const std::string& name);

}  // namespace autosp
