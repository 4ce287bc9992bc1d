// Attention of a plan for GPUs: the kernel is named in the program (compiler/lowering/
// select_kernels.h), as are its results and its workspace.
#include <string>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/ops/attention_kernels.h"
#include "worker/ops/own_op.h"

namespace autosp {
namespace {

struct SdpaForm {
  bool causal = false;
  double scale = 1;
  AttentionKernel kernel = AttentionKernel::kFlash;

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

  // A rank without a GPU verifies the plan with the kernel that it has.
  AttentionKernel KernelOn(const at::Tensor& q) const {
    return q.is_cuda() ? kernel : AttentionKernel::kCpu;
  }
};

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

// (grad [B, N, Sq, H], q, k, v, o, lse, mask | none) {causal, kernel, scale} -> dq, dk, dv
absl::StatusOr<OwnOp> MakeSdpaBackward(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 7, 3));
  ASSIGN_OR_RETURN(const SdpaForm form, SdpaForm::Make(context.instruction));
  return [form](const OwnCall& call) {
    const AttentionInputs inputs = form.InputsOf(call, 1, 6);
    AttentionGradients grads = RunAttentionBackward(
        form.KernelOn(inputs.q), inputs, call.args[0][0], call.args[4][0], call.args[5][0]);
    const at::ScalarType dtype = inputs.q.scalar_type();
    call.results = {grads.q.to(dtype), grads.k.to(dtype), grads.v.to(dtype)};
    return absl::OkStatus();
  };
}

}  // namespace autosp
