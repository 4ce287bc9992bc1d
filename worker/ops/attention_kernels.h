// The attention kernels of ATen behind one interface, for CPUs and CUDA devices.
//
// B batch, N query heads, K key heads (N a multiple of K), Sq / Sk numbers of query / key tokens,
// H head_dim. Every tensor has contiguous rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

#include "absl/status/statusor.h"

namespace autosp {

enum class AttentionKernel {
  kCpu,        // _scaled_dot_product_flash_attention_for_cpu
  kFlash,      // FlashAttention-2 for CUDA: half types, no mask, H a multiple of 8
  kCudnn,      // cuDNN's, the fastest on Hopper: as kFlash, H up to 128, FitsCudnn
  kEfficient,  // the memory-efficient kernel for CUDA: any floating type, masks
  kProducts,   // matrix products in fp32, whose scores are in memory: for few tokens, anywhere
};

// "flash", "cudnn", "efficient" or "products".
absl::StatusOr<AttentionKernel> ParseGpuKernel(std::string_view name);

struct AttentionInputs {
  at::Tensor q = {};    // [B, N, Sq, H]
  at::Tensor k = {};    // [B, K, Sk, H]
  at::Tensor v = {};    // [B, K, Sk, H]
  bool causal = false;  // query i attends to keys 0 to i
  // Added to the scores; may be broadcast to [B, N, Sq, Sk].
  std::optional<at::Tensor> mask = std::nullopt;
  double scale = 1;
  // kFlash and kProducts: query i attends to keys i - before to i + after. For kFlash every query
  // has one, and there are no more queries than keys: it takes an `after` past the last key for Sk.
  struct Band {
    int64_t before = 0;
    int64_t after = 0;
  };
  std::optional<Band> band = std::nullopt;
};

// The kernel for these inputs. On CUDA devices kFlash where it computes what is asked for, and
// kProducts for few tokens of half types.
AttentionKernel SelectAttentionKernel(const AttentionInputs& inputs);

struct AttentionOutput {
  at::Tensor out;  // [B, N, Sq, H], of the type of q, of kProducts in fp32
  at::Tensor lse;  // f32 [B, N, Sq]: log-sum-exp; undefined in rows that may attend to nothing
};
AttentionOutput RunAttention(AttentionKernel kernel, const AttentionInputs& inputs);

struct AttentionGradients {
  at::Tensor q, k, v;  // as the operands, and of their type, of kProducts in fp32
};
// `out` and `lse` may be those over more keys than k has: then the gradients are what these keys
// add. Rows that attend to nothing have an lse of +inf, and give nothing.
AttentionGradients RunAttentionBackward(AttentionKernel kernel, const AttentionInputs& inputs,
                                        const at::Tensor& grad, const at::Tensor& out,
                                        const at::Tensor& lse);

}  // namespace autosp
