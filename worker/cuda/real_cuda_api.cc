#include "worker/cuda/real_cuda_api.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

absl::Status ToStatus(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return absl::OkStatus();
  // Errors that are not sticky would otherwise show again in libtorch's next check.
  cudaGetLastError();
  const std::string message =
      absl::StrCat(call, ": ", cudaGetErrorName(error), ", ", cudaGetErrorString(error));
  if (error == cudaErrorMemoryAllocation) return ResourceExhausted(message);
  return Internal(message);
}

cudaStream_t Stream(CudaStream stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t Event(CudaEvent event) { return static_cast<cudaEvent_t>(event); }

class RealCuda final : public CudaApi {
 public:
  absl::StatusOr<int> DeviceCount() override {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver) {
      cudaGetLastError();
      return 0;
    }
    RETURN_IF_ERROR(ToStatus(error, "cudaGetDeviceCount"));
    return count;
  }

  absl::StatusOr<CudaVersions> Versions() override {
    CudaVersions versions;
    RETURN_IF_ERROR(ToStatus(cudaDriverGetVersion(&versions.driver), "cudaDriverGetVersion"));
    RETURN_IF_ERROR(ToStatus(cudaRuntimeGetVersion(&versions.runtime), "cudaRuntimeGetVersion"));
    return versions;
  }

  absl::Status SetDevice(int device) override {
    return WithContext(ToStatus(cudaSetDevice(device), "cudaSetDevice"), "device ", device);
  }

  absl::StatusOr<CudaMemoryInfo> MemoryInfo() override {
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    RETURN_IF_ERROR(ToStatus(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo"));
    return CudaMemoryInfo{.free_bytes = static_cast<int64_t>(free_bytes),
                          .total_bytes = static_cast<int64_t>(total_bytes)};
  }

  absl::StatusOr<CudaStream> CreateStream() override {
    cudaStream_t stream = nullptr;
    RETURN_IF_ERROR(ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                             "cudaStreamCreateWithFlags"));
    return static_cast<CudaStream>(stream);
  }

  absl::Status DestroyStream(CudaStream stream) override {
    return ToStatus(cudaStreamDestroy(Stream(stream)), "cudaStreamDestroy");
  }

  absl::Status SynchronizeStream(CudaStream stream) override {
    return ToStatus(cudaStreamSynchronize(Stream(stream)), "cudaStreamSynchronize");
  }

  absl::Status WaitEvent(CudaStream stream, CudaEvent event) override {
    return ToStatus(cudaStreamWaitEvent(Stream(stream), Event(event), cudaEventWaitDefault),
                    "cudaStreamWaitEvent");
  }

  absl::StatusOr<CudaEvent> CreateEvent() override {
    cudaEvent_t event = nullptr;
    RETURN_IF_ERROR(
        ToStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync),
                 "cudaEventCreateWithFlags"));
    return static_cast<CudaEvent>(event);
  }

  absl::Status DestroyEvent(CudaEvent event) override {
    return ToStatus(cudaEventDestroy(Event(event)), "cudaEventDestroy");
  }

  absl::Status RecordEvent(CudaEvent event, CudaStream stream) override {
    return ToStatus(cudaEventRecord(Event(event), Stream(stream)), "cudaEventRecord");
  }

  absl::StatusOr<bool> QueryEvent(CudaEvent event) override {
    const cudaError_t error = cudaEventQuery(Event(event));
    if (error == cudaErrorNotReady) {
      cudaGetLastError();
      return false;
    }
    RETURN_IF_ERROR(ToStatus(error, "cudaEventQuery"));
    return true;
  }

  absl::Status SynchronizeEvent(CudaEvent event) override {
    return ToStatus(cudaEventSynchronize(Event(event)), "cudaEventSynchronize");
  }

  absl::Status CopyAsync(void* to, const void* from, int64_t bytes, CudaStream stream) override {
    return ToStatus(
        cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, Stream(stream)),
        "cudaMemcpyAsync");
  }

  absl::StatusOr<void*> AllocateDevice(int64_t bytes) override {
    void* memory = nullptr;
    RETURN_IF_ERROR(
        WithContext(ToStatus(cudaMalloc(&memory, static_cast<size_t>(bytes)), "cudaMalloc"), bytes,
                    " bytes of device memory"));
    return memory;
  }

  absl::Status FreeDevice(void* memory) override { return ToStatus(cudaFree(memory), "cudaFree"); }

  absl::StatusOr<void*> AllocateHost(int64_t bytes) override {
    void* memory = nullptr;
    RETURN_IF_ERROR(WithContext(
        ToStatus(cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocPortable),
                 "cudaHostAlloc"),
        bytes, " bytes of pinned memory"));
    return memory;
  }

  absl::Status FreeHost(void* memory) override {
    return ToStatus(cudaFreeHost(memory), "cudaFreeHost");
  }
};

}  // namespace

CudaApi& RealCudaApi() {
  static auto* const api = new RealCuda;
  return *api;
}

}  // namespace autosp
