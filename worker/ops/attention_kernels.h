// The attention kernels of ATen behind one interface, for CPUs and CUDA devices.
//
// B batch, N query heads, K key heads (N a multiple of K), Sq / Sk numbers of query / key tokens,
// H head_dim. Every tensor has contiguous rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

namespace autosp {

enum class AttentionKernel {
  kCpu,        // _scaled_dot_product_flash_attention_for_cpu
  kFlash,      // FlashAttention-2 for CUDA: half types, no mask, H a multiple of 8
  kEfficient,  // the memory-efficient kernel for CUDA: any floating type, masks
};

struct AttentionInputs {
  at::Tensor q;                    // [B, N, Sq, H]
  at::Tensor k;                    // [B, K, Sk, H]
  at::Tensor v;                    // [B, K, Sk, H]
  bool causal = false;             // query i attends to keys 0 to i
  std::optional<at::Tensor> mask;  // added to the scores; may be broadcast to [B, N, Sq, Sk]
  double scale = 1;
};

// The kernel for these inputs. On CUDA devices "flash" where it computes what is asked for.
AttentionKernel SelectAttentionKernel(const AttentionInputs& inputs);

struct AttentionOutput {
  at::Tensor out;  // [B, N, Sq, H], of the type of q
  at::Tensor lse;  // f32 [B, N, Sq]: log-sum-exp; undefined in rows that may attend to nothing
};
AttentionOutput RunAttention(AttentionKernel kernel, const AttentionInputs& inputs);

struct AttentionGradients {
  at::Tensor q, k, v;  // as the operands, and of their type
};
// `out` and `lse` may be those over more keys than k has: then the gradients are what these keys
// add. Rows that attend to nothing have an lse of +inf, and give nothing.
AttentionGradients RunAttentionBackward(AttentionKernel kernel, const AttentionInputs& inputs,
                                        const at::Tensor& grad, const at::Tensor& out,
                                        const at::Tensor& lse);

}  // namespace autosp
