#include "worker/ops/cross_entropy_device.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/ones_like.h>

#include <algorithm>

namespace autosp {
namespace {

// Calls `run(first row, number of rows)`.
template <typename Run>
void ForEachChunk(const at::Tensor& logits, Run run) {
  const int64_t rows = logits.size(0);
  const int64_t columns = std::max<int64_t>(1, logits.size(1));
  const int64_t chunk = std::max<int64_t>(1, kDeviceLossElements / columns);
  for (int64_t row = 0; row < rows; row += chunk) run(row, std::min(chunk, rows - row));
}

// What is looked up by target: an ignored one stands for class 0.
struct Targets {
  Targets(const at::Tensor& target, const DeviceLossForm& form)
      : is_ignored(target.eq(form.ignore_index)), classes(target.masked_fill(is_ignored, 0)) {}

  at::Tensor is_ignored;
  at::Tensor classes;
};

double TotalWeight(const at::Tensor& logits, const DeviceLossForm& form) {
  return form.weights.defined() ? form.weights.sum(at::kDouble).item<double>()
                                : static_cast<double>(logits.size(1));
}

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
  DeviceLoss loss;
  loss.lse = at::empty({logits.size(0)}, options);
  at::Tensor smooth;  // sum over classes of weight * (lse - logit)
  if (form.smoothing > 0) smooth = at::empty({logits.size(0)}, options);
  const double total_weight = form.smoothing > 0 ? TotalWeight(logits, form) : 0;
  ForEachChunk(logits, [&](int64_t row, int64_t count) {
    const at::Tensor x = logits.narrow(0, row, count).to(at::kFloat);
    const at::Tensor lse = at::logsumexp(x, {1});
    loss.lse.narrow(0, row, count).copy_(lse);
    if (form.smoothing == 0) return;
    const at::Tensor weighted = form.weights.defined() ? x.mv(form.weights) : x.sum(1);
    smooth.narrow(0, row, count).copy_(lse.mul(total_weight).sub_(weighted));
  });
  loss.weights = WeightsOf(targets, loss.lse, form);
  const at::Tensor own_logits =
      logits.gather(1, targets.classes.unsqueeze(1)).squeeze(1).to(at::kFloat);
  loss.losses = loss.lse.sub(own_logits).mul_(loss.weights);
  if (form.smoothing > 0) {
    const double share = form.smoothing / static_cast<double>(logits.size(1));
    loss.losses.mul_(1 - form.smoothing).add_(smooth.mul_(share));
  }
  loss.losses.masked_fill_(targets.is_ignored, 0);
  return loss;
}

void LogitGradientsOnDevice(const at::Tensor& logits, const at::Tensor& target,
                            const at::Tensor& lse, const at::Tensor& grad,
                            const DeviceLossForm& form) {
  const Targets targets(target, form);
  const double share = form.smoothing / static_cast<double>(logits.size(1));
  const double total_weight = form.smoothing > 0 ? TotalWeight(logits, form) : 0;
  // The gradient of an ignored token is 0 in every class.
  const at::Tensor token_grad = grad.expand_as(lse).masked_fill(targets.is_ignored, 0);
  const at::Tensor own = WeightsOf(targets, lse, form).mul_(1 - form.smoothing);
  const at::Tensor all = own.add(share * total_weight).mul_(token_grad).unsqueeze(1);
  const at::Tensor less_own = own.mul(token_grad).neg_().unsqueeze(1);
  const at::Tensor classes = targets.classes.unsqueeze(1);
  ForEachChunk(logits, [&](int64_t row, int64_t count) {
    const auto part = [&](const at::Tensor& tensor) { return tensor.narrow(0, row, count); };
    at::Tensor x = part(logits).to(at::kFloat);  // the logits themselves where they are fp32
    x.sub_(part(lse).unsqueeze(1)).exp_().mul_(part(all));
    if (share > 0) {
      const at::Tensor less = part(token_grad).mul(share).unsqueeze(1);
      x.sub_(form.weights.defined() ? less.mul(form.weights) : less);
    }
    x.scatter_add_(1, part(classes), part(less_own));
    x.masked_fill_(part(targets.is_ignored).unsqueeze(1), 0);
    if (logits.scalar_type() != at::kFloat) part(logits).copy_(x);
  });
}

}  // namespace autosp
