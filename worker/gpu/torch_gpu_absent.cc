// TorchGpu of builds without CUDA: none can be opened, so that no other method is reached.
#include "common/errors.h"
#include "worker/gpu/torch_gpu.h"

namespace autosp {

absl::StatusOr<std::unique_ptr<TorchGpu>> TorchGpu::Open(int index, int64_t /*budget_bytes*/) {
  return Unimplemented("cuda:", index, " is asked for, and this build has no CUDA; build with ",
                       "the gpu preset (docs/gpu.md)");
}

absl::StatusOr<std::vector<TorchGpu::Info>> TorchGpu::List() {
  return Unimplemented("this build has no CUDA; build with the gpu preset (docs/gpu.md)");
}

void TorchGpu::Enter() const {}
void* TorchGpu::CurrentStream() const { return nullptr; }
std::string TorchGpu::Describe() const { return "none"; }
absl::StatusOr<std::unique_ptr<Collectives>> TorchGpu::OpenGroup(
    std::unique_ptr<Collectives> /*control*/) {
  return Unimplemented("this build has no NCCL");
}
int64_t TorchGpu::live_bytes() const { return 0; }
int64_t TorchGpu::peak_bytes() const { return 0; }
void TorchGpu::ResetPeak() {}
void TorchGpu::Synchronize() {}

absl::StatusOr<std::unique_ptr<Collectives>> ShareGpu(TorchGpu& /*gpu*/,
                                                      std::unique_ptr<Collectives> /*host*/) {
  return Unimplemented("this build has no CUDA");
}

}  // namespace autosp
