// The types of what aten.native_layer_norm keeps for its derivative.
#pragma once

#include "compiler/program/program.h"

namespace autosp {

// Mean and reciprocal deviation of an input and a weight of half types: kernels of CPUs keep them
// in that type, those of GPUs in fp32. Gives them, and what is copied from them, the type of the
// device that the program will run on. A plan for GPUs, which has fp32, so runs on CPUs too.
void SetStatisticsTypes(Program& program, bool on_gpu);

}  // namespace autosp
