// The device of one rank, as the NCCL groups of the rank share it.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/cuda/cuda_api.h"
#include "worker/nccl/nccl_api.h"

namespace autosp {

// All groups of a rank share one communication stream. So their calls reach the device in the order
// of the program, which is the same on every rank. On streams of their own, the kernels of two
// communicators could start in different orders on two ranks, and wait for each other for ever.
class NcclDevice {
 public:
  // `compute_stream` gives the stream on which the rank computes now. The interfaces outlive this.
  static absl::StatusOr<std::shared_ptr<NcclDevice>> Open(
      CudaApi& cuda, NcclApi& nccl, int device, std::function<CudaStream()> compute_stream);
  NcclDevice(const NcclDevice&) = delete;
  NcclDevice& operator=(const NcclDevice&) = delete;
  ~NcclDevice();

  CudaApi& cuda() const { return cuda_; }
  NcclApi& nccl() const { return nccl_; }
  CudaStream stream() const { return stream_; }
  CudaStream compute_stream() const { return compute_stream_(); }
  // One float, for barriers; what it holds says nothing.
  void* barrier_word() const { return barrier_word_; }
  // Makes the device that of the calling thread.
  absl::Status Use() const { return cuda_.SetDevice(device_); }

 private:
  NcclDevice(CudaApi& cuda, NcclApi& nccl, int device, std::function<CudaStream()> compute_stream);

  CudaApi& cuda_;
  NcclApi& nccl_;
  const int device_;
  const std::function<CudaStream()> compute_stream_;
  CudaStream stream_ = nullptr;
  void* barrier_word_ = nullptr;
};

}  // namespace autosp
