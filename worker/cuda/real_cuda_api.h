// The CUDA runtime itself. Only a build with AUTOSP_WITH_CUDA has it.
#pragma once

#include "worker/cuda/cuda_api.h"

namespace autosp {

// Lives for ever, as the runtime does.
CudaApi& RealCudaApi();

}  // namespace autosp
