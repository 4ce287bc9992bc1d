// What the ranks use of the CUDA runtime: the only way by which our own code reaches it.
//
// Plain types, so that everything above builds and is tested without CUDA's headers and without a
// GPU. The tests' double checks orders of streams, lifetimes and what is read too early.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace autosp {

// Handles of the runtime. The null stream is the default one of the device, which waits for no
// other stream here: all of ours are non-blocking.
using CudaStream = void*;
using CudaEvent = void*;

struct CudaMemoryInfo {
  int64_t free_bytes = 0;
  int64_t total_bytes = 0;
};

// As CUDA numbers them: 13020 is 13.2.
struct CudaVersions {
  int driver = 0;  // the newest runtime that the driver serves; 0: no driver
  int runtime = 0;
};

// Thread-safe, as the runtime is. Errors name the call and the runtime's own text.
class CudaApi {
 public:
  virtual ~CudaApi() = default;

  // 0 where there is no driver or no device.
  virtual absl::StatusOr<int> DeviceCount() = 0;
  virtual absl::StatusOr<CudaVersions> Versions() = 0;
  // A setting of the calling thread.
  virtual absl::Status SetDevice(int device) = 0;
  // Of the thread's device, all processes taken together.
  virtual absl::StatusOr<CudaMemoryInfo> MemoryInfo() = 0;

  virtual absl::StatusOr<CudaStream> CreateStream() = 0;
  virtual absl::Status DestroyStream(CudaStream stream) = 0;
  virtual absl::Status SynchronizeStream(CudaStream stream) = 0;
  // What is enqueued on `stream` from now on waits for the last record of `event`.
  virtual absl::Status WaitEvent(CudaStream stream, CudaEvent event) = 0;

  // Without timing. The host sleeps, and does not spin, in SynchronizeEvent.
  virtual absl::StatusOr<CudaEvent> CreateEvent() = 0;
  virtual absl::Status DestroyEvent(CudaEvent event) = 0;
  virtual absl::Status RecordEvent(CudaEvent event, CudaStream stream) = 0;
  // Whether all that was before its last record is done; true where it was never recorded.
  virtual absl::StatusOr<bool> QueryEvent(CudaEvent event) = 0;
  virtual absl::Status SynchronizeEvent(CudaEvent event) = 0;

  // Between any two of device and pinned host memory; addresses tell which.
  virtual absl::Status CopyAsync(void* to, const void* from, int64_t bytes, CudaStream stream) = 0;

  // Of the thread's device, past libtorch's allocator: for small things that live long.
  virtual absl::StatusOr<void*> AllocateDevice(int64_t bytes) = 0;
  virtual absl::Status FreeDevice(void* memory) = 0;

  // Pinned memory, which copies reach without a stop on the way.
  virtual absl::StatusOr<void*> AllocateHost(int64_t bytes) = 0;
  virtual absl::Status FreeHost(void* memory) = 0;
};

}  // namespace autosp
