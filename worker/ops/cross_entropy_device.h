// Cross entropy by ATen's kernels, for devices whose memory the host does not read: the same
// numbers as cross_entropy.cc, up to rounding.
//
// Works on some rows at a time: DeviceLossRows (compiler/program/loss_workspace.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace autosp {

struct DeviceLossForm {
  int64_t ignore_index = 0;
  double smoothing = 0;
  at::Tensor weights;  // f32 [V]; undefined: 1
};

struct DeviceLoss {
  at::Tensor losses;   // f32 [T]; 0 where ignored
  at::Tensor weights;  // f32 [T] of the targets; 0 where ignored
  at::Tensor lse;      // f32 [T]
};

// Whether a target is neither a class nor ignored. Waits for the device.
bool HasBadTargets(const at::Tensor& target, int64_t num_classes, int64_t ignore_index);

// Of logits [T, V] and target i64 [T].
DeviceLoss TokenLossesOnDevice(const at::Tensor& logits, const at::Tensor& target,
                               const DeviceLossForm& form);

// logits := their gradient, where `grad` f32 [] or [T] is that of the losses.
void LogitGradientsOnDevice(const at::Tensor& logits, const at::Tensor& target,
                            const at::Tensor& grad, const DeviceLossForm& form);

}  // namespace autosp
