#include "worker/verify/eager_fourier.h"

#include <ATen/ops/fft_fft.h>
#include <ATen/ops/fft_ifft.h>
#include <ATen/ops/fft_irfft.h>
#include <ATen/ops/fft_rfft.h>
#include <ATen/ops/view_as_complex.h>
#include <ATen/ops/view_as_real.h>

#include <string_view>

#include "common/errors.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/fourier.h"

namespace autosp {

absl::StatusOr<at::Tensor> TransformEagerly(const Node& node, const at::Tensor& operand) {
  constexpr std::string_view kForwardNorms[] = {"backward", "ortho", "forward"};
  constexpr std::string_view kInverseNorms[] = {"forward", "ortho", "backward"};
  const int64_t dim = IntegerArgument(node.args, kFftDim).value_or(0);
  const int64_t n = IntegerArgument(node.args, kFftN).value_or(0);
  const int64_t length = IntegerArgument(node.args, kFftLength).value_or(0);
  const int64_t scale = IntegerArgument(node.args, kFftScale).value_or(-1);
  const bool flag = FlagArgument(node.args, kFftFlag).value_or(false);
  if (scale < 0 || scale > 2) return Internal("scale ", scale, " of a transform is not known");
  const auto forward = c10::string_view(kForwardNorms[scale]);
  const auto inverse = c10::string_view(kInverseNorms[scale]);
  if (node.op == kFftR2c && !flag && length == n / 2 + 1) {
    return at::view_as_real(at::fft_rfft(operand, n, dim, forward));
  }
  if (node.op == kFftR2c && !flag && length == n) {
    return at::view_as_real(at::fft_fft(operand, n, dim, forward));
  }
  if (length != n) return Internal("a transform of ", n, " places gives ", length);
  if (node.op == kFftR2c) return Internal("frequencies are mirrored, as no import writes it");
  const at::Tensor complex = at::view_as_complex(operand.contiguous());
  if (node.op == kFftC2r && flag) return at::fft_irfft(complex, n, dim, inverse);
  if (node.op != kFftC2c) return Internal("frequencies are not mirrored, as an import writes it");
  return at::view_as_real(flag ? at::fft_ifft(complex, n, dim, inverse)
                               : at::fft_fft(complex, n, dim, forward));
}

}  // namespace autosp
