#include "worker/nccl/nccl_device.h"

#include <utility>

#include "common/log.h"
#include "common/status_macros.h"

namespace autosp {

NcclDevice::NcclDevice(CudaApi& cuda, NcclApi& nccl, int device,
                       std::function<CudaStream()> compute_stream)
    : cuda_(cuda), nccl_(nccl), device_(device), compute_stream_(std::move(compute_stream)) {}

absl::StatusOr<std::shared_ptr<NcclDevice>> NcclDevice::Open(
    CudaApi& cuda, NcclApi& nccl, int device, std::function<CudaStream()> compute_stream) {
  auto opened =
      std::shared_ptr<NcclDevice>(new NcclDevice(cuda, nccl, device, std::move(compute_stream)));
  RETURN_IF_ERROR(opened->Use());
  ASSIGN_OR_RETURN(opened->stream_, cuda.CreateStream(), "device ", device);
  ASSIGN_OR_RETURN(opened->barrier_word_, cuda.AllocateDevice(sizeof(float)), "device ", device);
  return opened;
}

// The groups are gone, so what is left on the stream are calls of aborted ones, which end by
// themselves. Nobody is left to be told of an error; the log has it.
NcclDevice::~NcclDevice() {
  absl::Status status = Use();
  if (stream_ != nullptr) status.Update(cuda_.SynchronizeStream(stream_));
  if (barrier_word_ != nullptr) status.Update(cuda_.FreeDevice(barrier_word_));
  if (stream_ != nullptr) status.Update(cuda_.DestroyStream(stream_));
  if (!status.ok()) LogWarning("closing device ", device_, ": ", status.ToString());
}

}  // namespace autosp
