#include "worker/ops/cross_entropy_device.h"

#include <ATen/ops/_log_softmax.h>
#include <ATen/ops/_log_softmax_backward_data.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "compiler/program/loss_workspace.h"

namespace autosp {
namespace {

// Calls `run(first row, number of rows)`.
template <typename Run>
void ForEachChunk(const at::Tensor& logits, Run run) {
  const int64_t rows = logits.size(0);
  const int64_t chunk = DeviceLossRows(logits.size(1));
  for (int64_t row = 0; row < rows; row += chunk) run(row, std::min(chunk, rows - row));
}

// What is looked up by target: an ignored one stands for class 0.
struct Targets {
  Targets(const at::Tensor& target, const DeviceLossForm& form)
      : is_ignored(target.eq(form.ignore_index)), classes(target.masked_fill(is_ignored, 0)) {}

  at::Tensor is_ignored;
  at::Tensor classes;
};

at::Tensor WeightsOf(const Targets& targets, const at::Tensor& lse, const DeviceLossForm& form) {
  const at::Tensor weights =
      form.weights.defined() ? form.weights.index_select(0, targets.classes) : at::ones_like(lse);
  return weights.masked_fill(targets.is_ignored, 0);
}

}  // namespace

bool HasBadTargets(const at::Tensor& target, int64_t num_classes, int64_t ignore_index) {
  const at::Tensor is_class = target.ge(0).logical_and(target.lt(num_classes));
  return is_class.logical_or(target.eq(ignore_index)).logical_not().any().item<bool>();
}

DeviceLoss TokenLossesOnDevice(const at::Tensor& logits, const at::Tensor& target,
                               const DeviceLossForm& form) {
  const auto options = logits.options().dtype(at::kFloat);
  const Targets targets(target, form);
  const at::Tensor classes = targets.classes.unsqueeze(1);
  const at::Tensor own = at::empty({logits.size(0), 1}, options);  // -log p of the target
  at::Tensor smooth;  // sum over classes of weight * -log p
  if (form.smoothing > 0) smooth = at::empty({logits.size(0)}, options);
  ForEachChunk(logits, [&](int64_t row, int64_t count) {
    const at::Tensor log_p =
        at::_log_softmax(logits.narrow(0, row, count).to(at::kFloat), 1, /*half_to_float=*/false);
    own.narrow(0, row, count).copy_(log_p.gather(1, classes.narrow(0, row, count)).neg_());
    if (form.smoothing == 0) return;
    const at::Tensor sum = form.weights.defined() ? log_p.mv(form.weights) : log_p.sum(1);
    smooth.narrow(0, row, count).copy_(sum.neg_());
  });
  DeviceLoss loss;
  loss.lse = logits.gather(1, classes).to(at::kFloat).add_(own).squeeze(1);
  loss.weights = WeightsOf(targets, loss.lse, form);
  loss.losses = own.squeeze(1).mul(loss.weights);
  if (form.smoothing > 0) {
    const double share = form.smoothing / static_cast<double>(logits.size(1));
    loss.losses.mul_(1 - form.smoothing).add_(smooth.mul_(share));
  }
  loss.losses.masked_fill_(targets.is_ignored, 0);
  return loss;
}

void LogitGradientsOnDevice(const at::Tensor& logits, const at::Tensor& target,
                            const at::Tensor& grad, const DeviceLossForm& form) {
  const Targets targets(target, form);
  const double share = form.smoothing / static_cast<double>(logits.size(1));
  // The gradient of an ignored token is 0 in every class.
  const at::Tensor token_grad =
      grad.expand({logits.size(0)}).masked_fill(targets.is_ignored, 0).neg_().unsqueeze(1);
  const at::Tensor own =
      WeightsOf(targets, token_grad.squeeze(1), form).mul_(1 - form.smoothing).unsqueeze(1);
  const at::Tensor own_grad = own.mul(token_grad);
  const at::Tensor classes = targets.classes.unsqueeze(1);
  ForEachChunk(logits, [&](int64_t row, int64_t count) {
    const auto part = [&](const at::Tensor& tensor) { return tensor.narrow(0, row, count); };
    const at::Tensor x = part(logits).to(at::kFloat);  // the logits themselves where they are fp32
    const at::Tensor log_p = at::_log_softmax(x, 1, /*half_to_float=*/false);
    // The gradient of log p.
    at::Tensor log_p_grad = at::zeros_like(log_p);
    if (share > 0) {
      log_p_grad.add_(part(token_grad), share);
      if (form.weights.defined()) log_p_grad.mul_(form.weights);
    }
    log_p_grad.scatter_add_(1, part(classes), part(own_grad));
    at::_log_softmax_backward_data_out(const_cast<at::Tensor&>(x), log_p_grad, log_p, 1,
                                       at::kFloat);
    if (logits.scalar_type() != at::kFloat) part(logits).copy_(x);
  });
}

}  // namespace autosp
