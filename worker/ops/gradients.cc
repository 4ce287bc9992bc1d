// Gradients: their norm, clipping by it, and weight gradients of a linear layer.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/program/converted_rows.h"
#include "worker/ops/own_op.h"
#include "worker/ops/row_kernels.h"

namespace autosp {
namespace {

// fp32 sums within a block, fp64 over blocks; blocks do not depend on the number of threads.
constexpr int64_t kBlockElements = 1 << 13;

template <typename T>
double SumOfSquaresOf(const at::Tensor& tensor) {
  const T* data = tensor.const_data_ptr<T>();
  const int64_t count = tensor.numel();
  const int64_t num_blocks = (count + kBlockElements - 1) / kBlockElements;
  std::vector<double> sums(static_cast<size_t>(num_blocks));
  at::parallel_for(0, num_blocks, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * kBlockElements;
      sums[static_cast<size_t>(i)] =
          SumOfSquares(data + first, std::min(kBlockElements, count - first));
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

double SumOfSquaresOf(const at::Tensor& tensor) {
  // Any dense order of the elements will do.
  const at::Tensor dense = tensor.is_non_overlapping_and_dense() ? tensor : tensor.contiguous();
  switch (dense.scalar_type()) {
    case at::kFloat:
      return SumOfSquaresOf<float>(dense);
    case at::kBFloat16:
      return SumOfSquaresOf<c10::BFloat16>(dense);
    case at::kHalf:
      return SumOfSquaresOf<c10::Half>(dense);
    default:
      return SumOfSquaresOf<float>(dense.to(at::kFloat));
  }
}

// f64 []. On a device the host does not wait for it.
at::Tensor SumOfSquaresOf(const std::vector<at::Tensor>& grads) {
  if (grads.empty() || !grads[0].is_cuda()) {
    double total = 0;
    for (const at::Tensor& grad : grads) total += SumOfSquaresOf(grad);
    return at::scalar_tensor(total, at::kDouble);
  }
  // A few kernels for all of them.
  return at::stack(at::_foreach_norm(grads, 2, at::kFloat)).to(at::kDouble).square_().sum();
}

absl::Status RunGradNorm(const OwnCall& call) {
  call.results = {SumOfSquaresOf(call.args[0]).sqrt().to(at::kFloat)};
  return absl::OkStatus();
}

absl::Status RunSumOfSquares(const OwnCall& call) {
  call.results = {SumOfSquaresOf(call.args[0])};
  return absl::OkStatus();
}

absl::Status RunNormOfSums(const OwnCall& call) {
  at::Tensor total = call.args[0][0];
  for (size_t i = 1; i < call.args[0].size(); ++i) total = total.add(call.args[0][i]);
  call.results = {total.sqrt().to(at::kFloat)};
  return absl::OkStatus();
}

absl::Status RunClip(const OwnCall& call, double max_norm) {
  // As torch.nn.utils.clip_grad_norm_; a norm that is not finite makes every gradient NaN or 0.
  if (call.args[1][0].is_cuda()) {
    const at::Tensor scale = call.args[1][0].add(1e-6).reciprocal_().mul_(max_norm).clamp_max_(1);
    at::_foreach_mul_(call.args[0], scale);
    return absl::OkStatus();
  }
  const double norm = call.args[1][0].item<float>();
  const double scale = max_norm / (norm + 1e-6);
  if (scale >= 1) return absl::OkStatus();
  for (const at::Tensor& grad : call.args[0]) grad.mul_(scale);
  return absl::OkStatus();
}

void AddProduct(const at::Tensor& dst, const at::Tensor& a, const at::Tensor& b, double beta) {
  at::addmm_out(const_cast<at::Tensor&>(dst), dst, a.t(), b, beta, 1);
}

absl::Status RunMatmulAccumulate(const OwnCall& call, double beta) {
  const at::Tensor& dst = call.args[0][0];
  const at::Tensor& a = call.args[1][0];
  const at::Tensor& b = call.args[2][0];
  if (a.dim() != 2 || b.dim() != 2 || a.size(0) != b.size(0) || dst.dim() != 2 ||
      dst.size(0) != a.size(1) || dst.size(1) != b.size(1)) {
    return InvalidArgument(
        "dst [", absl::StrJoin(dst.sizes(), ", "), "], a [", absl::StrJoin(a.sizes(), ", "),
        "] and b [", absl::StrJoin(b.sizes(), ", "), "] must be [out, in], [T, out], [T, in]");
  }
  const at::ScalarType dtype = dst.scalar_type();
  if (a.scalar_type() == dtype && b.scalar_type() == dtype) {
    AddProduct(dst, a, b, beta);
    return absl::OkStatus();
  }
  if (dst.is_cuda() && dtype == at::kFloat && a.scalar_type() == b.scalar_type()) {
    at::addmm_out(const_cast<at::Tensor&>(dst), dst, a.t(), b, at::kFloat, beta, 1);
    return absl::OkStatus();
  }
  // No kernel of ATen multiplies half types into an fp32 sum on the CPU.
  if (a.size(0) == 0 && beta == 0) dst.zero_();
  for (int64_t row = 0; row < a.size(0); row += kConvertedRows) {
    const int64_t count = std::min(kConvertedRows, a.size(0) - row);
    AddProduct(dst, a.narrow(0, row, count).to(dtype), b.narrow(0, row, count).to(dtype),
               row == 0 ? beta : 1);
  }
  return absl::OkStatus();
}

}  // namespace

// ([grads]) -> f32 []: the L2 norm of all together
absl::StatusOr<OwnOp> MakeGradNorm(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 1, 1));
  return &RunGradNorm;
}

// ([tensors]) -> f64 []: of all their elements
absl::StatusOr<OwnOp> MakeSumOfSquares(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 1, 1));
  return &RunSumOfSquares;
}

// ([sums of squares], f64 []) -> f32 []: the L2 norm of what they are the sums of
absl::StatusOr<OwnOp> MakeNormOfSums(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 1, 1));
  if (OperandsOf(context.instruction).empty()) return InvalidArgument("there is no sum");
  return &RunNormOfSums;
}

// ([grads], norm []) {max_norm}: grads *= min(1, max_norm / (norm + 1e-6))
absl::StatusOr<OwnOp> MakeClip(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 2, 0));
  ASSIGN_OR_RETURN(const double max_norm, FloatAttribute(context.instruction, "max_norm"));
  if (max_norm <= 0) return InvalidArgument("max_norm (", max_norm, ") must be positive");
  return [max_norm](const OwnCall& call) { return RunClip(call, max_norm); };
}

// (dst [out, in], a [T, out], b [T, in]) {beta}: dst := beta * dst + a^T b. Where dst is wider than
// a or b, converts 512 rows at a time: (out + in) * 512 elements of dst's dtype are its workspace.
absl::StatusOr<OwnOp> MakeMatmulAccumulate(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 3, 0));
  ASSIGN_OR_RETURN(const double beta, FloatAttribute(context.instruction, "beta"));
  if (beta != 0 && beta != 1) return InvalidArgument("beta (", beta, ") must be 0 or 1");
  return [beta](const OwnCall& call) { return RunMatmulAccumulate(call, beta); };
}

}  // namespace autosp
