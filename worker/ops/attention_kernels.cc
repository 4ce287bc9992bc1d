#include "worker/ops/attention_kernels.h"

#include <ATen/ops/_efficient_attention_backward.h>
#include <ATen/ops/_efficient_attention_forward.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <limits>
#include <tuple>
#include <utility>
#include <vector>

namespace autosp {
namespace {

constexpr int64_t kLseAlignment = 32;  // of the rows of log-sum-exps that kEfficient reads
constexpr int64_t kMaskAlignment = 16;
constexpr int64_t kCausalFromTopLeft = 1;  // custom_mask_type of kEfficient

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// CUDA's kernels count [B, S, N, H].
at::Tensor Swapped(const at::Tensor& tensor) { return tensor.transpose(1, 2); }

AttentionOutput RunFlash(const AttentionInputs& in) {
  const auto results = at::_flash_attention_forward(
      Swapped(in.q), Swapped(in.k), Swapped(in.v), std::nullopt, std::nullopt, in.q.size(2),
      in.k.size(2), /*dropout_p=*/0, in.causal, /*return_debug_mask=*/false, in.scale);
  return {Swapped(std::get<0>(results)), std::get<1>(results)};
}

AttentionGradients RunFlashBackward(const AttentionInputs& in, const at::Tensor& grad,
                                    const at::Tensor& out, const at::Tensor& lse) {
  const at::Tensor no_state = at::empty({2}, in.q.options().dtype(at::kLong));
  auto [dq, dk, dv] = at::_flash_attention_backward(
      Swapped(grad), Swapped(in.q), Swapped(in.k), Swapped(in.v), Swapped(out), lse.contiguous(),
      /*cum_seq_q=*/at::Tensor(), /*cum_seq_k=*/at::Tensor(), in.q.size(2), in.k.size(2),
      /*dropout_p=*/0, in.causal, no_state, at::empty({0}, in.q.options().dtype(at::kLong)),
      in.scale);
  return {Swapped(dq), Swapped(dk), Swapped(dv)};
}

// kEfficient wants a key head for each query head.
at::Tensor RepeatHeads(const at::Tensor& tensor, int64_t num_heads) {
  const int64_t group = num_heads / tensor.size(1);
  return group == 1 ? tensor : tensor.repeat_interleave(group, 1);
}

// The gradient of a head that several query heads share is the sum of theirs.
at::Tensor SumHeads(const at::Tensor& grad, int64_t num_kv_heads) {
  const int64_t group = grad.size(1) / num_kv_heads;
  return group == 1 ? grad : grad.unflatten(1, {num_kv_heads, group}).sum(2);
}

// Of the type of q and with aligned rows.
std::optional<at::Tensor> EfficientMask(const AttentionInputs& in) {
  if (!in.mask.has_value()) return std::nullopt;
  std::vector<int64_t> sizes = in.mask->sizes().vec();
  const int64_t keys = in.k.size(2);
  sizes.back() = RoundUp(keys, kMaskAlignment);
  const at::Tensor aligned = at::empty(sizes, in.q.options());
  const at::Tensor mask = aligned.narrow(-1, 0, keys);
  mask.copy_(*in.mask);
  return mask.expand({in.q.size(0), in.q.size(1), in.q.size(2), keys});
}

AttentionOutput RunEfficient(const AttentionInputs& in) {
  const int64_t heads = in.q.size(1);
  const auto results = at::_efficient_attention_forward(
      Swapped(in.q), Swapped(RepeatHeads(in.k, heads)), Swapped(RepeatHeads(in.v, heads)),
      EfficientMask(in), std::nullopt, std::nullopt, std::nullopt, std::nullopt, /*dropout_p=*/0,
      in.causal ? kCausalFromTopLeft : 0, /*compute_log_sumexp=*/true, in.scale);
  return {Swapped(std::get<0>(results)), std::get<1>(results).narrow(2, 0, in.q.size(2))};
}

AttentionGradients RunEfficientBackward(const AttentionInputs& in, const at::Tensor& grad,
                                        const at::Tensor& out, const at::Tensor& lse) {
  const int64_t heads = in.q.size(1);
  const int64_t rows = in.q.size(2);
  const at::Tensor aligned_lse = at::full({in.q.size(0), heads, RoundUp(rows, kLseAlignment)},
                                          std::numeric_limits<double>::infinity(), lse.options());
  aligned_lse.narrow(2, 0, rows).copy_(lse);
  const at::Tensor no_state = at::empty({}, in.q.options().dtype(at::kLong));
  const auto results = at::_efficient_attention_backward(
      Swapped(grad), Swapped(in.q), Swapped(RepeatHeads(in.k, heads)),
      Swapped(RepeatHeads(in.v, heads)), EfficientMask(in), Swapped(out), std::nullopt,
      std::nullopt, rows, in.k.size(2), aligned_lse, /*dropout_p=*/0, no_state, no_state,
      in.causal ? kCausalFromTopLeft : 0, /*bias_requires_grad=*/false, in.scale);
  return {Swapped(std::get<0>(results)), SumHeads(Swapped(std::get<1>(results)), in.k.size(1)),
          SumHeads(Swapped(std::get<2>(results)), in.v.size(1))};
}

}  // namespace

AttentionKernel SelectAttentionKernel(const AttentionInputs& in) {
  if (!in.q.is_cuda()) return AttentionKernel::kCpu;
  const int64_t head_dim = in.q.size(3);
  const bool is_half = in.q.scalar_type() == at::kBFloat16 || in.q.scalar_type() == at::kHalf;
  // With a causal mask flash would align the last query with the last key.
  const bool is_square = !in.causal || in.q.size(2) == in.k.size(2);
  const bool fits =
      is_half && is_square && !in.mask.has_value() && head_dim % 8 == 0 && head_dim <= 256;
  return fits ? AttentionKernel::kFlash : AttentionKernel::kEfficient;
}

AttentionOutput RunAttention(AttentionKernel kernel, const AttentionInputs& in) {
  switch (kernel) {
    case AttentionKernel::kFlash:
      return RunFlash(in);
    case AttentionKernel::kEfficient:
      return RunEfficient(in);
    case AttentionKernel::kCpu:
      break;
  }
  auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
      in.q, in.k, in.v, /*dropout_p=*/0, in.causal, in.mask, in.scale);
  return {std::move(out), std::move(lse)};
}

AttentionGradients RunAttentionBackward(AttentionKernel kernel, const AttentionInputs& in,
                                        const at::Tensor& grad, const at::Tensor& out,
                                        const at::Tensor& lse) {
  switch (kernel) {
    case AttentionKernel::kFlash:
      return RunFlashBackward(in, grad, out, lse);
    case AttentionKernel::kEfficient:
      return RunEfficientBackward(in, grad, out, lse);
    case AttentionKernel::kCpu:
      break;
  }
  auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      grad, in.q, in.k, in.v, out, lse, /*dropout_p=*/0, in.causal, in.mask, in.scale);
  return {std::move(dq), std::move(dk), std::move(dv)};
}

}  // namespace autosp
