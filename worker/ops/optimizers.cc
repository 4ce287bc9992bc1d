// Optimizer steps over lists of parameters. Numerics are those of torch.optim.
//
// Where there are fp32 masters, they are what is updated, and each parameter becomes its master
// rounded. Gradients may be of another dtype than what is updated; then they are converted one at a
// time.
#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>

#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/ops/own_op.h"

namespace autosp {
namespace {

using TensorVector = std::vector<at::Tensor>;

absl::Status CheckLength(std::string_view what, const TensorVector& list, size_t expected) {
  if (list.size() == expected) return absl::OkStatus();
  return InvalidArgument(list.size(), " ", std::string(what), " for ", expected, " parameters");
}

// Calls `update(i, target, gradient)` for each parameter, then rounds masters into parameters.
template <typename Update>
absl::Status ForEachParameter(const TensorVector& params, const TensorVector& grads,
                              const TensorVector& masters, Update update) {
  RETURN_IF_ERROR(CheckLength("gradients", grads, params.size()));
  if (!masters.empty()) RETURN_IF_ERROR(CheckLength("masters", masters, params.size()));
  for (size_t i = 0; i < params.size(); ++i) {
    const bool has_master = !masters.empty() && masters[i].defined();
    const at::Tensor& kept = has_master ? masters[i] : params[i];
    // The kernels walk over memory without gaps, which a part of a parameter may have.
    const at::Tensor target = kept.contiguous();
    update(i, target, grads[i].to(target.scalar_type()));
    if (!target.is_same(kept)) kept.copy_(target);
    if (has_master) params[i].copy_(target);
  }
  return absl::OkStatus();
}

struct AdamW {
  double beta1 = 0;
  double beta2 = 0;
  double eps = 0;
  double weight_decay = 0;

  // params, grads, exp_avgs, exp_avg_sqs, lr, step, masters
  absl::Status operator()(const OwnCall& call) const {
    const TensorVector& params = call.args[0];
    RETURN_IF_ERROR(CheckLength("exp_avgs", call.args[2], params.size()));
    RETURN_IF_ERROR(CheckLength("exp_avg_sqs", call.args[3], params.size()));
    const at::Tensor& lr = call.args[4][0];
    const at::Tensor& step = call.args[5][0];
    return ForEachParameter(
        params, call.args[1], call.args[6],
        [&](size_t i, const at::Tensor& target, const at::Tensor& grad) {
          at::_fused_adamw_({target}, {grad}, {call.args[2][i]}, {call.args[3][i]}, {}, {step}, lr,
                            beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false);
        });
  }
};

struct Sgd {
  double momentum = 0;
  double weight_decay = 0;

  // params, grads, momentum buffers, lr, masters
  absl::Status operator()(const OwnCall& call) const {
    const TensorVector& params = call.args[0];
    const TensorVector& buffers = call.args[2];
    if (momentum != 0) RETURN_IF_ERROR(CheckLength("momentum buffers", buffers, params.size()));
    const at::Tensor& lr = call.args[3][0];
    return ForEachParameter(
        params, call.args[1], call.args[4],
        [&](size_t i, const at::Tensor& target, const at::Tensor& grad) {
          // A buffer of zeros makes the first step the same as every other.
          const TensorVector buffer = momentum != 0 ? TensorVector{buffers[i]} : TensorVector{};
          at::_fused_sgd_({target}, {grad}, buffer, weight_decay, momentum, lr, /*dampening=*/0,
                          /*nesterov=*/false, /*maximize=*/false, /*is_first_step=*/false);
        });
  }
};

}  // namespace

// ([params], [grads], [exp_avgs], [exp_avg_sqs], lr [], step [], [masters] | none)
absl::StatusOr<OwnOp> MakeAdamW(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 7, 0));
  AdamW op;
  ASSIGN_OR_RETURN(op.beta1, FloatAttribute(context.instruction, "beta1"));
  ASSIGN_OR_RETURN(op.beta2, FloatAttribute(context.instruction, "beta2"));
  ASSIGN_OR_RETURN(op.eps, FloatAttribute(context.instruction, "eps"));
  ASSIGN_OR_RETURN(op.weight_decay, FloatAttribute(context.instruction, "weight_decay"));
  return op;
}

// ([params], [grads], [momentum buffers] | none, lr [], [masters] | none)
absl::StatusOr<OwnOp> MakeSgd(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 5, 0));
  Sgd op;
  ASSIGN_OR_RETURN(op.momentum, FloatAttributeOr(context.instruction, "momentum", 0));
  ASSIGN_OR_RETURN(op.weight_decay, FloatAttributeOr(context.instruction, "weight_decay", 0));
  return op;
}

}  // namespace autosp
