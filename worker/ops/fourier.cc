// Fourier transforms (compiler/ir/fourier.h). Complex numbers are ATen's only inside: operands
// and results are real, or pairs in a last dimension of 2.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_fft_c2c.h>
#include <ATen/ops/_fft_c2r.h>
#include <ATen/ops/_fft_r2c.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/view_as_complex.h>
#include <ATen/ops/view_as_real.h>

#include <algorithm>
#include <array>
#include <optional>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/ops/own_op.h"

namespace autosp {
namespace {

struct Transform {
  int64_t dim = 0;
  int64_t n = 1;
  int64_t length = 1;
  bool flag = false;  // inverse, or half
  int64_t scale = 0;  // as ATen's kernels number it

  // Frequencies of which the others are mirror images, and those of them that have one.
  int64_t half_length() const { return n / 2 + 1; }
  int64_t num_mirrored() const { return (n - 1) / 2; }
};

absl::StatusOr<Transform> TransformOf(const Instruction& instruction) {
  RETURN_IF_ERROR(CheckArity(instruction, 6, 1));
  Transform transform;
  ASSIGN_OR_RETURN(transform.dim, IntArgument(instruction, 1));
  ASSIGN_OR_RETURN(transform.n, IntArgument(instruction, 2));
  ASSIGN_OR_RETURN(transform.length, IntArgument(instruction, 3));
  ASSIGN_OR_RETURN(transform.scale, IntArgument(instruction, 5));
  const auto* flag = std::get_if<bool>(&instruction.args[4]);
  if (flag == nullptr || transform.n < 1 || transform.scale < 0 || transform.scale > 2) {
    return InvalidArgument(instruction.op, ": of ", transform.n, " places with scale ",
                           transform.scale, " must be of at least one place, with a boolean, and ",
                           "a scale from 0 to 2");
  }
  transform.flag = *flag;
  return transform;
}

// The kernels know fp32 and fp64.
at::Tensor Widened(const at::Tensor& x) {
  const bool is_half = x.element_size() < 4;
  return is_half ? x.to(at::kFloat) : x;
}

// So many places of a dimension, counted from its end: zeros where there are fewer. A copy where
// `copies` says so, or places are added.
at::Tensor Places(const at::Tensor& x, int64_t from_end, int64_t count, bool copies) {
  const int64_t given = x.size(-from_end);
  if (given >= count) {
    const at::Tensor cut = x.narrow(-from_end, 0, count);
    return copies ? cut.clone(at::MemoryFormat::Contiguous) : cut;
  }
  std::array<int64_t, 4> pads = {};
  pads[2 * from_end - 1] = count - given;
  return at::constant_pad_nd(x, at::IntArrayRef(pads.data(), 2 * from_end), 0);
}

// Pairs [..., f, 2] that may be written to, with so many frequencies.
at::Tensor Spectrum(const at::Tensor& pairs, int64_t dim, int64_t count) {
  return Places(Widened(pairs).movedim(dim, -2), 2, count, /*copies=*/true);
}

at::Tensor Finished(const at::Tensor& result, int64_t from, int64_t dim, at::ScalarType type) {
  return result.movedim(from, dim).to(type).contiguous();
}

at::Tensor RealToPairs(const at::Tensor& x, const Transform& transform) {
  const at::Tensor signal =
      Places(Widened(x).movedim(transform.dim, -1), 1, transform.n, /*copies=*/false);
  const bool is_half = transform.flag || transform.length <= transform.half_length();
  const at::Tensor spectrum =
      at::view_as_real(at::_fft_r2c(signal, {signal.dim() - 1}, transform.scale, is_half));
  if (transform.flag) spectrum.narrow(-2, 1, transform.num_mirrored()).mul_(2);
  const at::Tensor cut = Places(spectrum, 2, transform.length, /*copies=*/false);
  return Finished(cut, -2, transform.dim, x.scalar_type());
}

// Of frequencies that have no mirror image only the real part counts.
at::Tensor SignalOfHalf(const at::Tensor& pairs, const Transform& transform) {
  const at::Tensor spectrum = Spectrum(pairs, transform.dim, transform.half_length());
  if (!transform.flag) spectrum.narrow(-2, 1, transform.num_mirrored()).mul_(0.5);
  const at::Tensor imaginary = spectrum.select(-1, 1);
  imaginary.select(-1, 0).zero_();
  if (transform.n % 2 == 0) imaginary.select(-1, transform.n / 2).zero_();
  const at::Tensor complex = at::view_as_complex(spectrum);
  return at::_fft_c2r(complex, {complex.dim() - 1}, transform.scale, transform.n);
}

at::Tensor TransformedPairs(const at::Tensor& pairs, const Transform& transform, bool inverse) {
  const at::Tensor complex = at::view_as_complex(Spectrum(pairs, transform.dim, transform.n));
  return at::view_as_real(
      at::_fft_c2c(complex, {complex.dim() - 1}, transform.scale, /*forward=*/!inverse));
}

at::Tensor PairsToReal(const at::Tensor& pairs, const Transform& transform) {
  const bool is_half = transform.flag || pairs.size(transform.dim) <= transform.half_length();
  const at::Tensor signal =
      is_half ? SignalOfHalf(pairs, transform)
              : TransformedPairs(pairs, transform, /*inverse=*/true).select(-1, 0);
  const at::Tensor cut = Places(signal, 1, transform.length, /*copies=*/false);
  return Finished(cut, -1, transform.dim, pairs.scalar_type());
}

at::Tensor PairsToPairs(const at::Tensor& pairs, const Transform& transform) {
  const at::Tensor all = TransformedPairs(pairs, transform, transform.flag);
  const at::Tensor cut = Places(all, 2, transform.length, /*copies=*/false);
  return Finished(cut, -2, transform.dim, pairs.scalar_type());
}

using Kernel = at::Tensor (*)(const at::Tensor& operand, const Transform& transform);

absl::StatusOr<OwnOp> Make(const OwnOpContext& context, Kernel kernel) {
  ASSIGN_OR_RETURN(const Transform transform, TransformOf(context.instruction));
  return [transform, kernel](const OwnCall& call) {
    call.results = {kernel(call.args[0][0], transform)};
    return absl::OkStatus();
  };
}

}  // namespace

// (z, dim, n, length, inverse, scale)
absl::StatusOr<OwnOp> MakeFftC2c(const OwnOpContext& context) {
  return Make(context, PairsToPairs);
}

// (z, dim, n, length, half, scale)
absl::StatusOr<OwnOp> MakeFftC2r(const OwnOpContext& context) { return Make(context, PairsToReal); }

// (x, dim, n, length, half, scale)
absl::StatusOr<OwnOp> MakeFftR2c(const OwnOpContext& context) { return Make(context, RealToPairs); }

}  // namespace autosp
