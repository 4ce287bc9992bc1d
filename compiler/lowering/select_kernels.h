// Names the kernels of the devices that a program will run on.
#pragma once

#include "compiler/config/cluster_spec.h"
#include "compiler/program/program.h"

namespace autosp {

// Lowering names the attention kernel that CPUs have. This gives each call of it, and of its
// derivative, to a kernel that CUDA devices have:
//
//   autosp.sdpa(q, k, v, mask | none) {causal, kernel, scale} -> o, lse
//   autosp.sdpa_backward(grad, q, k, v, o, lse, mask | none) {causal, kernel, scale, side}
//       -> dq, dk, dv
//
// `kernel` is "flash" where it computes what is asked for (half types, no mask, head_dim a multiple
// of 8 up to 256, a causal one of as many queries as keys), else "efficient". On Hopper it is
// "cudnn" where flash would do, head_dim is at most 128 and queries and keys are multiples of 128:
// on an H100 it is 1.7 to 1.9 times as fast, with the same workspace. Few tokens of half types are
// left to "products", which has scores in memory. A derivative over more than 524,288 tokens runs
// in squares of `side` tokens (attention_workspace.h). Values keep their places and names, outputs
// lie as the kernels write them (lay_by_tokens.h), and the workspace of each call becomes that of
// its new kernel; blockwise attention of half types gets the attribute `kernel`, and the loss the
// workspace that it has on GPUs. Ranks without a GPU run all of it with the kernel of CPUs, so that
// a plan for GPUs can be verified anywhere.
void SelectCudaKernels(Program& program, DeviceKind device);

}  // namespace autosp
