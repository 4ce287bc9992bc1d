// NCCL itself. Only a build with AUTOSP_WITH_CUDA has it.
#pragma once

#include "worker/nccl/nccl_api.h"

namespace autosp {

// Lives for ever, as the library does.
NcclApi& RealNcclApi();

}  // namespace autosp
