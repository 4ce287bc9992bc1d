#include "worker/gpu/torch_gpu.h"

#include <ATen/Context.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/bytes.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/cuda/real_cuda_api.h"
#include "worker/cuda/staged_collectives.h"
#include "worker/executor/torch_types.h"
#include "worker/nccl/nccl_collectives.h"
#include "worker/nccl/real_nccl_api.h"

namespace autosp {
namespace {

namespace cuda = c10::cuda;
using AllocatorStats = c10::CachingDeviceAllocator::DeviceStats;

constexpr auto kAllPools = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

AllocatorStats StatsOf(int index) {
  return cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(index));
}

absl::Status SetBudget(int index, int64_t budget_bytes) {
  if (budget_bytes <= 0) return absl::OkStatus();
  const int64_t total = at::cuda::getDeviceProperties(index)->totalGlobalMem;
  if (budget_bytes > total) {
    return InvalidArgument("a budget of ", FormatBytes(budget_bytes), " on cuda:", index,
                           ", which has ", FormatBytes(total), "; lower memory.device_budget");
  }
  cuda::CUDACachingAllocator::setMemoryFraction(
      static_cast<double>(budget_bytes) / static_cast<double>(total),
      static_cast<c10::DeviceIndex>(index));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TorchGpu>> TorchGpu::Open(int index, int64_t budget_bytes) {
  // Segments that grow waste less between tensors of many sizes: at 96 % of a device, a step that
  // had fitted before failed without them. Read by the allocator when it is made; the user's own
  // setting wins.
  setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True", /*overwrite=*/0);
  auto gpu = std::unique_ptr<TorchGpu>(new TorchGpu(index));
  RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    const int num_devices = cuda::device_count();
    if (index < 0 || index >= num_devices) {
      return NotFound("cuda:", index, " is not one of the ", num_devices,
                      " devices that libtorch sees; see nvidia-smi and CUDA_VISIBLE_DEVICES");
    }
    at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
    gpu->Enter();
    // Convolutions of fp32 would be computed with 10 bits of mantissa.
    at::globalContext().setAllowTF32CuDNN(false);
    return SetBudget(index, budget_bytes);
  }));
  return gpu;
}

absl::StatusOr<std::vector<TorchGpu::Info>> TorchGpu::List() {
  std::vector<Info> list;
  RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    for (int index = 0; index < cuda::device_count(); ++index) {
      const cudaDeviceProp* properties = at::cuda::getDeviceProperties(index);
      list.push_back({properties->name, static_cast<int64_t>(properties->totalGlobalMem)});
    }
    return absl::OkStatus();
  }));
  if (list.empty()) {
    return NotFound("libtorch sees no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES");
  }
  return list;
}

void TorchGpu::Enter() const { cuda::set_device(static_cast<c10::DeviceIndex>(index_)); }

void* TorchGpu::CurrentStream() const {
  return cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(index_)).stream();
}

std::string TorchGpu::Describe() const {
  const cudaDeviceProp* properties = at::cuda::getDeviceProperties(index_);
  return absl::StrCat(properties->name, ", ",
                      FormatBytes(static_cast<int64_t>(properties->totalGlobalMem)),
                      ", compute capability ", properties->major, ".", properties->minor);
}

absl::StatusOr<std::unique_ptr<Collectives>> TorchGpu::OpenGroup(
    std::unique_ptr<Collectives> control) {
  if (nccl_ == nullptr) {
    ASSIGN_OR_RETURN(nccl_, NcclDevice::Open(RealCudaApi(), RealNcclApi(), index_,
                                             [this] { return CurrentStream(); }));
  }
  return NcclCollectives::Open(nccl_, std::move(control));
}

int64_t TorchGpu::live_bytes() const { return StatsOf(index_).allocated_bytes[kAllPools].current; }
int64_t TorchGpu::peak_bytes() const { return StatsOf(index_).allocated_bytes[kAllPools].peak; }
void TorchGpu::ResetPeak() {
  cuda::CUDACachingAllocator::resetPeakStats(static_cast<c10::DeviceIndex>(index_));
}
void TorchGpu::Synchronize() { cuda::device_synchronize(); }

absl::StatusOr<std::unique_ptr<Collectives>> ShareGpu(TorchGpu& gpu,
                                                      std::unique_ptr<Collectives> host) {
  return std::make_unique<StagedCollectives>(
      RealCudaApi(), gpu.device().index(), [&gpu] { return gpu.CurrentStream(); }, std::move(host));
}

}  // namespace autosp
