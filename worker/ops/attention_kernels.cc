#include "worker/ops/attention_kernels.h"

#include <ATen/ops/_efficient_attention_backward.h>
#include <ATen/ops/_efficient_attention_forward.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention_backward.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>

#include <algorithm>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/round_up.h"
#include "compiler/program/attention_workspace.h"

namespace autosp {
namespace {

constexpr int64_t kLseAlignment = 32;  // of the rows of log-sum-exps that kEfficient reads
constexpr int64_t kMaskAlignment = 16;
constexpr double kLowest = std::numeric_limits<float>::lowest();
constexpr int64_t kCausalFromTopLeft = 1;  // custom_mask_type of kEfficient

// CUDA's kernels count [B, S, N, H].
at::Tensor Swapped(const at::Tensor& tensor) { return tensor.transpose(1, 2); }

// [B, S, N, H] as the kernels write it: no copy of what they have written.
at::Tensor TokensFirst(const at::Tensor& tensor) { return Swapped(tensor).contiguous(); }

// Flash counts from the last query and the last key: query i of Sq attends to keys i + Sk - Sq -
// left to i + Sk - Sq + right.
struct FlashWindow {
  explicit FlashWindow(const AttentionInputs& in) {
    if (!in.band.has_value()) return;
    const int64_t more_keys = in.k.size(2) - in.q.size(2);
    left = in.band->before + more_keys;
    right = in.band->after - more_keys;
  }

  std::optional<int64_t> left;
  std::optional<int64_t> right;
};

AttentionOutput RunFlash(const AttentionInputs& in) {
  const FlashWindow window(in);
  const auto results = at::_flash_attention_forward(
      Swapped(in.q), Swapped(in.k), Swapped(in.v), std::nullopt, std::nullopt, in.q.size(2),
      in.k.size(2), /*dropout_p=*/0, in.causal, /*return_debug_mask=*/false, in.scale, window.left,
      window.right);
  return {Swapped(std::get<0>(results)), std::get<1>(results)};
}

AttentionGradients RunFlashBackward(const AttentionInputs& in, const at::Tensor& grad,
                                    const at::Tensor& out, const at::Tensor& lse) {
  const FlashWindow window(in);
  const at::Tensor no_state = at::empty({2}, in.q.options().dtype(at::kLong));
  auto [dq, dk, dv] = at::_flash_attention_backward(
      Swapped(grad), Swapped(in.q), Swapped(in.k), Swapped(in.v), Swapped(out), lse.contiguous(),
      /*cum_seq_q=*/at::Tensor(), /*cum_seq_k=*/at::Tensor(), in.q.size(2), in.k.size(2),
      /*dropout_p=*/0, in.causal, no_state, at::empty({0}, in.q.options().dtype(at::kLong)),
      in.scale, window.left, window.right);
  return {Swapped(dq), Swapped(dk), Swapped(dv)};
}

// cuDNN keeps a log-sum-exp as [B, N, Sq, 1].
AttentionOutput RunCudnn(const AttentionInputs& in) {
  const auto results = at::_scaled_dot_product_cudnn_attention(
      in.q, in.k, in.v, std::nullopt, /*compute_log_sumexp=*/true, /*dropout_p=*/0, in.causal,
      /*return_debug_mask=*/false, in.scale);
  return {std::get<0>(results), std::get<1>(results).reshape(in.q.sizes().slice(0, 3))};
}

// ATen keeps what cuDNN has prepared by the layouts of q, k and v alone: those of the others must
// not vary beside them.
AttentionGradients RunCudnnBackward(const AttentionInputs& in, const at::Tensor& grad,
                                    const at::Tensor& out, const at::Tensor& lse) {
  const at::Tensor no_state = at::empty({}, in.q.options().dtype(at::kLong));
  const at::Tensor none;
  auto [dq, dk, dv] = at::_scaled_dot_product_cudnn_attention_backward(
      Swapped(TokensFirst(grad)), in.q, in.k, in.v, Swapped(TokensFirst(out)),
      lse.contiguous().unsqueeze(3), no_state, no_state,
      /*attn_bias=*/none, /*cum_seq_q=*/none, /*cum_seq_k=*/none, in.q.size(2), in.k.size(2),
      /*dropout_p=*/0, in.causal, in.scale);
  return {std::move(dq), std::move(dk), std::move(dv)};
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
  // The backward kernel reads past the last key.
  const at::Tensor aligned =
      at::full(sizes, -std::numeric_limits<double>::infinity(), in.q.options());
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

// Of half types the kernel itself multiplies the output with its gradient, and takes the rows of
// the output to lie N * H elements apart, whatever its strides are: of another layout it would read
// other rows, and memory behind the last one.
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
      Swapped(RepeatHeads(in.v, heads)), EfficientMask(in), TokensFirst(out), std::nullopt,
      std::nullopt, rows, in.k.size(2), aligned_lse, /*dropout_p=*/0, no_state, no_state,
      in.causal ? kCausalFromTopLeft : 0, /*bias_requires_grad=*/false, in.scale);
  return {Swapped(std::get<0>(results)), SumHeads(Swapped(std::get<1>(results)), in.k.size(1)),
          SumHeads(Swapped(std::get<2>(results)), in.v.size(1))};
}

// What is added to scores [Sq, Sk]: the mask, and -inf where order or a band forbid.
at::Tensor Scores(const AttentionInputs& in, const at::Tensor& q, const at::Tensor& k) {
  at::Tensor scores = at::matmul(q, k.transpose(2, 3)).mul_(in.scale);
  if (in.mask.has_value()) scores.add_(*in.mask);
  if (!in.causal && !in.band.has_value()) return scores;
  const auto options = q.options().dtype(at::kLong);
  const at::Tensor queries = at::arange(q.size(2), options).unsqueeze(1);
  const at::Tensor ahead = at::arange(k.size(2), options).unsqueeze(0).sub(queries);
  at::Tensor forbidden = ahead.gt(in.causal ? 0 : in.band->after);
  if (in.band.has_value()) forbidden = forbidden.logical_or(ahead.lt(-in.band->before));
  return scores.masked_fill_(forbidden, -std::numeric_limits<double>::infinity());
}

struct Fp32Operands {
  explicit Fp32Operands(const AttentionInputs& in)
      : q(in.q.to(at::kFloat)),
        k(RepeatHeads(in.k, in.q.size(1)).to(at::kFloat)),
        v(RepeatHeads(in.v, in.q.size(1)).to(at::kFloat)) {}

  at::Tensor q, k, v;
};

AttentionOutput RunProducts(const AttentionInputs& in) {
  const Fp32Operands x(in);
  at::Tensor scores = Scores(in, x.q, x.k);
  const at::Tensor lse = at::logsumexp(scores, {-1});
  // Of rows without a key all probabilities are 0.
  const at::Tensor p = scores.sub_(lse.clamp_min(kLowest).unsqueeze(-1)).exp_();
  return {at::matmul(p, x.v), lse};
}

AttentionGradients RunProductsBackward(const AttentionInputs& in, const at::Tensor& grad,
                                       const at::Tensor& out, const at::Tensor& lse) {
  const Fp32Operands x(in);
  const at::Tensor dout = grad.to(at::kFloat);
  const at::Tensor p = Scores(in, x.q, x.k).sub_(lse.unsqueeze(-1)).exp_();
  const at::Tensor delta = dout.mul(out).sum(-1, /*keepdim=*/true);
  const at::Tensor dscores =
      at::matmul(dout, x.v.transpose(2, 3)).sub_(delta).mul_(p).mul_(in.scale);
  const int64_t kv_heads = in.k.size(1);
  return {at::matmul(dscores, x.k), SumHeads(at::matmul(dscores.transpose(2, 3), x.q), kv_heads),
          SumHeads(at::matmul(p.transpose(2, 3), dout), kv_heads)};
}

}  // namespace

absl::StatusOr<AttentionKernel> ParseGpuKernel(std::string_view name) {
  if (name == "flash") return AttentionKernel::kFlash;
  if (name == "cudnn") return AttentionKernel::kCudnn;
  if (name == "efficient") return AttentionKernel::kEfficient;
  if (name == "products") return AttentionKernel::kProducts;
  return InvalidArgument("kernel '", std::string(name),
                         "' is not cudnn, flash, efficient or products");
}

AttentionKernel SelectAttentionKernel(const AttentionInputs& in) {
  if (!in.q.is_cuda()) return AttentionKernel::kCpu;
  const int64_t head_dim = in.q.size(3);
  const bool is_half = in.q.scalar_type() == at::kBFloat16 || in.q.scalar_type() == at::kHalf;
  const bool has_few = std::min(in.q.size(2), in.k.size(2)) < kGpuMinTokens;
  if (is_half && has_few) return AttentionKernel::kProducts;
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
    case AttentionKernel::kCudnn:
      return RunCudnn(in);
    case AttentionKernel::kEfficient:
      return RunEfficient(in);
    case AttentionKernel::kProducts:
      return RunProducts(in);
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
    case AttentionKernel::kCudnn:
      return RunCudnnBackward(in, grad, out, lse);
    case AttentionKernel::kEfficient:
      return RunEfficientBackward(in, grad, out, lse);
    case AttentionKernel::kProducts:
      return RunProductsBackward(in, grad, out, lse);
    case AttentionKernel::kCpu:
      break;
  }
  auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      grad, in.q, in.k, in.v, out, lse, /*dropout_p=*/0, in.causal, in.mask, in.scale);
  return {std::move(dq), std::move(dk), std::move(dv)};
}

}  // namespace autosp
