// What our own ops in graphs compute, written with ATen's, so that autograd can differentiate them.
// Registered as autosp_definition.NAME. Their kernels are held against it in tests/worker/ops.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

namespace autosp {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

// [B or 1, Sq, Sk]: who may attend to whom, as compiler/rules/op_rule.h says.
at::Tensor Allowed(int64_t q_len, int64_t k_len, const OptionalTensor& q_docs,
                   const OptionalTensor& k_docs, bool causal, int64_t window) {
  at::Tensor allowed = at::ones({1, q_len, k_len}, at::kBool);
  const at::Tensor ahead = at::arange(q_len).unsqueeze(1) - at::arange(k_len);
  if (causal) allowed = allowed.logical_and(ahead >= 0);
  if (window > 0) allowed = allowed.logical_and(ahead < window);
  if (window > 0 && !causal) allowed = allowed.logical_and(ahead > -window);
  if (!q_docs && !k_docs) return allowed;
  const at::Tensor q = q_docs ? *q_docs : at::zeros_like(*k_docs).slice(1, 0, q_len);
  const at::Tensor k = k_docs ? *k_docs : at::zeros_like(*q_docs).slice(1, 0, k_len);
  return allowed.logical_and(q.unsqueeze(2) == k.unsqueeze(1));
}

at::Tensor Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const OptionalTensor& q_docs, const OptionalTensor& k_docs, bool causal,
                     int64_t window, std::optional<double> scale) {
  const int64_t copies = q.size(1) / k.size(1);
  const double factor = scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
  const at::Tensor hidden =
      Allowed(q.size(2), k.size(2), q_docs, k_docs, causal, window).logical_not().unsqueeze(1);
  const at::Tensor scores = q.matmul(k.repeat_interleave(copies, 1).transpose(2, 3)) * factor;
  // A query that may attend to nothing gives zeros.
  const at::Tensor weights = scores.masked_fill(hidden, -1e30).softmax(-1).masked_fill(hidden, 0.0);
  return weights.matmul(v.repeat_interleave(copies, 1));
}

// y[t] = x[t - by]: zeros come in where it does not wrap.
at::Tensor TokenShift(const at::Tensor& x, int64_t dim, int64_t by, bool wraps) {
  if (wraps) return x.roll({by}, {dim});
  const at::Tensor last = x.transpose(dim, -1);
  return at::constant_pad_nd(last, {by, -by}, 0).transpose(dim, -1).contiguous();
}

at::Tensor TokenConv(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                     int64_t before, int64_t dilation) {
  const int64_t after = (weight.size(2) - 1) * dilation - before;
  return at::conv1d(at::constant_pad_nd(x, {before, after}, 0), weight, bias, {1},
                    at::IntArrayRef({0}), {dilation}, x.size(1) / weight.size(1));
}

at::Tensor AllTokens(const at::Tensor& x, int64_t /*dim*/) { return x.clone(); }

// One matrix for each row.
at::Tensor ExpertMm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& experts) {
  const at::Tensor rows = x.reshape({-1, 1, x.size(-1)});
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = weight.size(2);
  return rows.bmm(weight.index_select(0, experts.reshape({-1}))).reshape(sizes);
}

// Cosine or sine of 2 pi i j / n.
at::Tensor Waves(int64_t n, int64_t rows, int64_t columns, bool is_sine) {
  const double angle = 2 * M_PI / static_cast<double>(n);
  const at::Tensor places = at::arange(rows).unsqueeze(1) * at::arange(columns);
  const at::Tensor angles = places.remainder(n).to(at::kDouble) * angle;
  return is_sine ? angles.sin() : angles.cos();
}

double ScaleOf(int64_t n, int64_t scale) {
  const auto size = static_cast<double>(n);
  return scale == 0 ? 1 : scale == 1 ? 1 / std::sqrt(size) : 1 / size;
}

// Sums of waves [rows, columns] over rows, the last dimension; no product of matrices, whose work
// would be counted.
at::Tensor SumOfWaves(const at::Tensor& last, const at::Tensor& waves) {
  return (last.unsqueeze(-1) * waves).sum(-2);
}

// What each frequency counts.
at::Tensor Weights(int64_t n, int64_t count, bool half) {
  const at::Tensor k = at::arange(count);
  const at::Tensor ones = at::ones({count}, at::kDouble);
  if (!half) return ones.masked_fill(k >= n, 0);
  return (ones * 2).masked_fill(k == 0, 1).masked_fill(k * 2 == n, 1).masked_fill(k * 2 > n, 0);
}

// [..., places] with the transformed dimension last: places beyond n count nothing.
at::Tensor LastOf(const at::Tensor& x, int64_t dim, int64_t n) {
  TORCH_CHECK(x.is_floating_point(), "transforms take floating point numbers");
  const at::Tensor last = x.to(at::kDouble).movedim(dim, -1);
  return last.narrow(-1, 0, std::min(n, last.size(-1)));
}

// Rows beyond n are zeros.
at::Tensor BackTo(const at::Tensor& result, int64_t dim, int64_t n, at::ScalarType type) {
  const at::Tensor valid = at::arange(result.size(-1)) < n;
  return (result * valid).movedim(-1, dim).to(type).contiguous();
}

at::Tensor FftR2c(const at::Tensor& x, int64_t dim, int64_t n, int64_t length, bool half,
                  int64_t scale) {
  const at::Tensor last = LastOf(x, dim, n);
  const at::Tensor weights = Weights(n, length, half) * ScaleOf(n, scale);
  const at::Tensor re = SumOfWaves(last, Waves(n, last.size(-1), length, false)) * weights;
  const at::Tensor im = SumOfWaves(last, Waves(n, last.size(-1), length, true)) * -weights;
  return at::stack({re.movedim(-1, dim), im.movedim(-1, dim)}, -1).to(x.scalar_type());
}

at::Tensor FftC2r(const at::Tensor& z, int64_t dim, int64_t n, int64_t length, bool half,
                  int64_t scale) {
  const at::Tensor re = LastOf(z.select(-1, 0), dim, n);
  const at::Tensor im = LastOf(z.select(-1, 1), dim, n);
  const int64_t count = re.size(-1);
  const at::Tensor weights = Weights(n, count, half) * ScaleOf(n, scale);
  const at::Tensor sum = SumOfWaves(re * weights, Waves(n, count, length, false)) -
                         SumOfWaves(im * weights, Waves(n, count, length, true));
  return BackTo(sum, dim, n, z.scalar_type());
}

at::Tensor FftC2c(const at::Tensor& z, int64_t dim, int64_t n, int64_t length, bool inverse,
                  int64_t scale) {
  const at::Tensor re = LastOf(z.select(-1, 0), dim, n);
  const at::Tensor im = LastOf(z.select(-1, 1), dim, n);
  const at::Tensor cos = Waves(n, re.size(-1), length, false) * ScaleOf(n, scale);
  const at::Tensor sin =
      Waves(n, re.size(-1), length, true) * ScaleOf(n, scale) * (inverse ? 1.0 : -1.0);
  const at::Tensor new_re = SumOfWaves(re, cos) - SumOfWaves(im, sin);
  const at::Tensor new_im = SumOfWaves(re, sin) + SumOfWaves(im, cos);
  return at::stack(
      {BackTo(new_re, dim, n, z.scalar_type()), BackTo(new_im, dim, n, z.scalar_type())}, -1);
}

struct TokenLosses {
  at::Tensor losses, weights, lse;  // f32 [T]
};

TokenLosses LossesOf(const at::Tensor& logits, const at::Tensor& target, int64_t ignore_index,
                     const OptionalTensor& weight, double smoothing) {
  const at::Tensor x = logits.to(at::kFloat);
  const at::Tensor lse = x.logsumexp({1});
  const at::Tensor costs = (lse.unsqueeze(1) - x) * (weight ? *weight : at::ones({x.size(1)}));
  const at::Tensor ignored = target == ignore_index;
  const at::Tensor safe = target.masked_fill(ignored, 0);
  const at::Tensor losses =
      costs.gather(1, safe.unsqueeze(1)).squeeze(1) * (1 - smoothing) + costs.mean({1}) * smoothing;
  const at::Tensor weights = (weight ? *weight : at::ones({x.size(1)})).index_select(0, safe);
  return {losses.masked_fill(ignored, 0.0), weights.masked_fill(ignored, 0.0), lse};
}

std::tuple<at::Tensor, at::Tensor> CrossEntropy(const at::Tensor& logits, const at::Tensor& target,
                                                int64_t ignore_index, const OptionalTensor& weight,
                                                double smoothing) {
  const TokenLosses tokens = LossesOf(logits, target, ignore_index, weight, smoothing);
  return {tokens.losses, tokens.lse.detach()};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> CrossEntropySum(const at::Tensor& logits,
                                                               const at::Tensor& target,
                                                               int64_t ignore_index,
                                                               const OptionalTensor& weight,
                                                               double smoothing) {
  const TokenLosses tokens = LossesOf(logits, target, ignore_index, weight, smoothing);
  return {tokens.losses.sum(), tokens.weights.sum(), tokens.lse.detach()};
}

}  // namespace

TORCH_LIBRARY(autosp_definition, library) {
  library.def(
      "attention(Tensor q, Tensor k, Tensor v, Tensor? q_docs, Tensor? k_docs, bool causal, "
      "int window, float? scale) -> Tensor",
      Attention);
  library.def(
      "cross_entropy(Tensor logits, Tensor target, int ignore_index, Tensor? weight=None, "
      "float smoothing=0.) -> (Tensor, Tensor)",
      CrossEntropy);
  library.def(
      "cross_entropy_sum(Tensor logits, Tensor target, int ignore_index, Tensor? weight=None, "
      "float smoothing=0.) -> (Tensor, Tensor, Tensor)",
      CrossEntropySum);
  library.def("all_tokens(Tensor x, int dim) -> Tensor", AllTokens);
  library.def("expert_mm(Tensor x, Tensor weight, Tensor experts) -> Tensor", ExpertMm);
  library.def("fft_c2c(Tensor z, int dim, int n, int length, bool inverse, int scale) -> Tensor",
              FftC2c);
  library.def("fft_c2r(Tensor z, int dim, int n, int length, bool half, int scale) -> Tensor",
              FftC2r);
  library.def("fft_r2c(Tensor x, int dim, int n, int length, bool half, int scale) -> Tensor",
              FftR2c);
  library.def("token_shift(Tensor x, int dim, int by, bool wraps) -> Tensor", TokenShift);
  library.def(
      "token_conv(Tensor x, Tensor weight, Tensor? bias, int before, int dilation) -> Tensor",
      TokenConv);
}

}  // namespace autosp
