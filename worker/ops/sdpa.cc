// Attention of a plan for GPUs: the kernel is named in the program (compiler/lowering/
// select_kernels.h), as are its results and its workspace.
#include <ATen/ops/zeros.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/program/attention_workspace.h"
#include "worker/ops/attention_kernels.h"
#include "worker/ops/own_op.h"

namespace autosp {
namespace {

struct SdpaForm {
  bool causal = false;
  double scale = 1;
  AttentionKernel kernel = AttentionKernel::kFlash;
  int64_t side = 0;  // of a tile of the derivative; 0: it is computed whole

  static absl::StatusOr<SdpaForm> Make(const Instruction& instruction) {
    SdpaForm form;
    const auto causal = instruction.attributes.find("causal");
    const bool* is_causal =
        causal == instruction.attributes.end() ? nullptr : std::get_if<bool>(&causal->second);
    if (is_causal == nullptr) {
      return InvalidArgument(instruction.op, ": attribute causal must be true or false");
    }
    form.causal = *is_causal;
    ASSIGN_OR_RETURN(form.scale, FloatAttribute(instruction, "scale"));
    ASSIGN_OR_RETURN(const std::string kernel, StringAttribute(instruction, "kernel"));
    ASSIGN_OR_RETURN(form.kernel, ParseGpuKernel(kernel), instruction.op);
    if (instruction.attributes.contains(kDerivativeSide)) {
      ASSIGN_OR_RETURN(form.side, IntAttribute(instruction, kDerivativeSide));
    }
    return form;
  }

  AttentionInputs InputsOf(const OwnCall& call, size_t query, size_t mask) const {
    AttentionInputs inputs = {.q = call.args[query][0],
                              .k = call.args[query + 1][0],
                              .v = call.args[query + 2][0],
                              .causal = causal,
                              .mask = std::nullopt,
                              .scale = scale};
    if (!call.args[mask].empty()) inputs.mask = call.args[mask][0];
    return inputs;
  }

  bool IsCut(const AttentionInputs& inputs) const { return side > 0 && inputs.q.size(2) > side; }

  // A rank without a GPU verifies the plan with the kernel that it has.
  AttentionKernel KernelOn(const at::Tensor& q) const {
    return q.is_cuda() ? kernel : AttentionKernel::kCpu;
  }
};

struct TokenRange {
  int64_t begin = 0;
  int64_t size = 0;

  at::Tensor Of(const at::Tensor& tensor) const { return tensor.narrow(2, begin, size); }
};

// Ranges of `side` tokens. What is left in the end is a range of its own where kernels can take so
// few, else a part of the last.
std::vector<TokenRange> RangesOf(int64_t length, int64_t side) {
  std::vector<TokenRange> ranges;
  for (int64_t begin = 0; begin < length;) {
    const int64_t left = length - begin;
    ranges.push_back({begin, left < side + kGpuMinTokens ? left : side});
    begin += ranges.back().size;
  }
  return ranges;
}

// For something like `tensor` [B, N, S, H], in the order of kernels: [B, S, N, H].
at::Tensor ZerosByTokens(const at::Tensor& tensor, at::ScalarType dtype) {
  return at::zeros({tensor.size(0), tensor.size(2), tensor.size(1), tensor.size(3)},
                   tensor.options().dtype(dtype))
      .transpose(1, 2);
}

// The derivative of attention a square of queries x keys at a time: what a kernel sums up in fp32,
// and makes for each query head that shares a key head, it has for `side` tokens. The probabilities
// of a square follow from the log-sum-exps over all keys, so that gradients of squares only have to
// be summed, which they are in fp32.
AttentionGradients BackwardInSquares(const SdpaForm& form, const AttentionInputs& all,
                                     const at::Tensor& grad, const at::Tensor& out,
                                     const at::Tensor& lse) {
  AttentionGradients sums = {.q = ZerosByTokens(all.q, all.q.scalar_type()),
                             .k = ZerosByTokens(all.k, at::kFloat),
                             .v = ZerosByTokens(all.v, at::kFloat)};
  for (const TokenRange& rows : RangesOf(all.q.size(2), form.side)) {
    const at::Tensor q = rows.Of(all.q);
    const at::Tensor dq = ZerosByTokens(q, at::kFloat);
    for (const TokenRange& keys : RangesOf(all.k.size(2), form.side)) {
      if (form.causal && keys.begin > rows.begin) break;
      const AttentionInputs square = {.q = q,
                                      .k = keys.Of(all.k),
                                      .v = keys.Of(all.v),
                                      .causal = form.causal && keys.begin == rows.begin,
                                      .mask = std::nullopt,
                                      .scale = form.scale};
      const bool fits_cudnn = FitsCudnn(rows.size, keys.size);
      const AttentionKernel kernel = form.kernel == AttentionKernel::kCudnn && !fits_cudnn
                                         ? AttentionKernel::kFlash
                                         : form.kernel;
      const AttentionGradients terms =
          RunAttentionBackward(q.is_cuda() ? kernel : AttentionKernel::kCpu, square, rows.Of(grad),
                               rows.Of(out), rows.Of(lse));
      dq.add_(terms.q);
      keys.Of(sums.k).add_(terms.k);
      keys.Of(sums.v).add_(terms.v);
    }
    rows.Of(sums.q).copy_(dq);
  }
  return sums;
}

absl::Status CheckCut(const SdpaForm& form, const AttentionInputs& inputs) {
  if (form.causal && inputs.q.size(2) != inputs.k.size(2)) {
    return InvalidArgument("a causal derivative in squares needs as many keys (", inputs.k.size(2),
                           ") as queries (", inputs.q.size(2), ")");
  }
  if (inputs.mask.has_value()) return InvalidArgument("a derivative in squares takes no mask");
  return absl::OkStatus();
}

}  // namespace

// (q [B, N, Sq, H], k [B, K, Sk, H], v [B, K, Sk, H], mask [.., Sq, Sk] | none)
//   {causal, kernel, scale} -> o [B, N, Sq, H], lse f32 [B, N, Sq]
absl::StatusOr<OwnOp> MakeSdpa(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 4, 2));
  ASSIGN_OR_RETURN(const SdpaForm form, SdpaForm::Make(context.instruction));
  return [form](const OwnCall& call) {
    const AttentionInputs inputs = form.InputsOf(call, 0, 3);
    AttentionOutput output = RunAttention(form.KernelOn(inputs.q), inputs);
    call.results = {output.out.to(inputs.q.scalar_type()), std::move(output.lse)};
    return absl::OkStatus();
  };
}

// (grad [B, N, Sq, H], q, k, v, o, lse, mask | none) {causal, kernel, scale, side} -> dq, dk, dv
//
// side, where it is there: more queries than that are computed in squares of that many tokens.
absl::StatusOr<OwnOp> MakeSdpaBackward(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 7, 3));
  ASSIGN_OR_RETURN(const SdpaForm form, SdpaForm::Make(context.instruction));
  return [form](const OwnCall& call) -> absl::Status {
    const AttentionInputs inputs = form.InputsOf(call, 1, 6);
    const at::Tensor& grad = call.args[0][0];
    const at::Tensor& out = call.args[4][0];
    const at::Tensor& lse = call.args[5][0];
    if (form.IsCut(inputs)) RETURN_IF_ERROR(CheckCut(form, inputs));
    AttentionGradients grads =
        form.IsCut(inputs) ? BackwardInSquares(form, inputs, grad, out, lse)
                           : RunAttentionBackward(form.KernelOn(inputs.q), inputs, grad, out, lse);
    const at::ScalarType dtype = inputs.q.scalar_type();
    call.results = {grads.q.to(dtype), grads.k.to(dtype), grads.v.to(dtype)};
    return absl::OkStatus();
  };
}

}  // namespace autosp
