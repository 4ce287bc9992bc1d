// Cross entropy as a sum over tokens and a count, so that the mean can be taken over all ranks.
//
// Forward reads the logits once and keeps only lse [T]; backward turns the logits into their own
// gradient. PyTorch's pair of ops holds two more tensors of the size of the logits.
// T tokens, V classes; both local.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/ops/own_op.h"
#include "worker/ops/row_kernels.h"

namespace autosp {
namespace {

// Rows given to a thread at a time: about this many logits.
constexpr int64_t kGrainLogits = 1 << 15;

int64_t GrainRows(int64_t num_classes) {
  return std::max<int64_t>(1, kGrainLogits / std::max<int64_t>(1, num_classes));
}

std::string ArgumentName(const OwnOpContext& context, size_t index) {
  const auto* id = std::get_if<ValueId>(&context.instruction.args[index]);
  return id == nullptr ? "?" : "%" + context.program.value(*id).name;
}

absl::Status CheckShapes(const at::Tensor& logits, const at::Tensor& target) {
  if (logits.dim() != 2 || target.dim() != 1 || target.size(0) != logits.size(0)) {
    return InvalidArgument("logits [", absl::StrJoin(logits.sizes(), ", "), "] and target [",
                           absl::StrJoin(target.sizes(), ", "), "] must be [T, V] and [T]");
  }
  if (target.scalar_type() != at::kLong || !target.is_contiguous()) {
    return InvalidArgument("target must be contiguous i64");
  }
  if (logits.size(1) > 1 && logits.stride(1) != 1) {
    return InvalidArgument("rows of logits must be contiguous");
  }
  return absl::OkStatus();
}

absl::Status CheckTargets(const at::Tensor& target, int64_t num_classes, int64_t ignore_index,
                          const std::string& name) {
  const int64_t* targets = target.const_data_ptr<int64_t>();
  for (int64_t t = 0; t < target.numel(); ++t) {
    if (targets[t] == ignore_index || (targets[t] >= 0 && targets[t] < num_classes)) continue;
    return InvalidArgument("target ", name, " has class ", targets[t], " at local position ", t,
                           "; classes are 0 to ", num_classes - 1, ", and ", ignore_index,
                           " to ignore a token");
  }
  return absl::OkStatus();
}

template <typename T>
void ForwardRows(const at::Tensor& logits, const at::Tensor& lse) {
  const T* data = logits.const_data_ptr<T>();
  float* out = lse.mutable_data_ptr<float>();
  const int64_t num_classes = logits.size(1);
  const int64_t stride = logits.stride(0);
  at::parallel_for(0, logits.size(0), GrainRows(num_classes), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) out[t] = LogSumExp(data + t * stride, num_classes);
  });
}

// Serial, so that the sum does not depend on the number of threads.
template <typename T>
void SumLoss(const at::Tensor& logits, const at::Tensor& target, const at::Tensor& lse,
             int64_t ignore_index, const at::Tensor& loss, const at::Tensor& count) {
  const T* data = logits.const_data_ptr<T>();
  const int64_t* targets = target.const_data_ptr<int64_t>();
  const float* log_sums = lse.const_data_ptr<float>();
  double sum = 0;
  int64_t num_valid = 0;
  for (int64_t t = 0; t < target.numel(); ++t) {
    if (targets[t] == ignore_index) continue;
    sum += log_sums[t] - static_cast<float>(data[t * logits.stride(0) + targets[t]]);
    ++num_valid;
  }
  *loss.mutable_data_ptr<float>() = static_cast<float>(sum);
  *count.mutable_data_ptr<float>() = static_cast<float>(num_valid);
}

template <typename T>
void BackwardRows(const at::Tensor& logits, const at::Tensor& target, const at::Tensor& lse,
                  float grad, int64_t ignore_index) {
  T* data = logits.mutable_data_ptr<T>();
  const int64_t* targets = target.const_data_ptr<int64_t>();
  const float* log_sums = lse.const_data_ptr<float>();
  const int64_t num_classes = logits.size(1);
  const int64_t stride = logits.stride(0);
  at::parallel_for(0, logits.size(0), GrainRows(num_classes), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      T* row = data + t * stride;
      if (targets[t] == ignore_index) {
        std::fill_n(row, num_classes, T(0));
        continue;
      }
      const float logit = static_cast<float>(row[targets[t]]);
      SoftmaxTimes(row, num_classes, log_sums[t], grad);
      row[targets[t]] = static_cast<T>((std::exp(logit - log_sums[t]) - 1.0F) * grad);
    }
  });
}

absl::Status RunForward(const OwnCall& call, int64_t ignore_index, const std::string& target_name) {
  const at::Tensor& logits = call.args[0][0];
  const at::Tensor& target = call.args[1][0];
  RETURN_IF_ERROR(CheckShapes(logits, target));
  RETURN_IF_ERROR(CheckTargets(target, logits.size(1), ignore_index, target_name));
  const at::Tensor loss = at::empty({}, at::kFloat);
  const at::Tensor count = at::empty({}, at::kFloat);
  const at::Tensor lse = at::empty({logits.size(0)}, at::kFloat);
  AT_DISPATCH_SWITCH(logits.scalar_type(), "cross_entropy_sum", AT_DISPATCH_CASE(at::kFloat, [&] {
                       ForwardRows<scalar_t>(logits, lse);
                       SumLoss<scalar_t>(logits, target, lse, ignore_index, loss, count);
                     }) AT_DISPATCH_CASE(at::kBFloat16, [&] {
                       ForwardRows<scalar_t>(logits, lse);
                       SumLoss<scalar_t>(logits, target, lse, ignore_index, loss, count);
                     }) AT_DISPATCH_CASE(at::kHalf, [&] {
                       ForwardRows<scalar_t>(logits, lse);
                       SumLoss<scalar_t>(logits, target, lse, ignore_index, loss, count);
                     }));
  call.results = {loss, count, lse};
  return absl::OkStatus();
}

absl::Status RunBackward(const OwnCall& call, int64_t ignore_index) {
  const at::Tensor& logits = call.args[0][0];
  const at::Tensor& target = call.args[1][0];
  const at::Tensor& lse = call.args[2][0];
  RETURN_IF_ERROR(CheckShapes(logits, target));
  const float grad = call.args[3][0].item<float>();
  AT_DISPATCH_SWITCH(logits.scalar_type(), "cross_entropy_backward",
                     AT_DISPATCH_CASE(at::kFloat, [&] {
                       BackwardRows<scalar_t>(logits, target, lse, grad, ignore_index);
                     }) AT_DISPATCH_CASE(at::kBFloat16, [&] {
                       BackwardRows<scalar_t>(logits, target, lse, grad, ignore_index);
                     }) AT_DISPATCH_CASE(at::kHalf, [&] {
                       BackwardRows<scalar_t>(logits, target, lse, grad, ignore_index);
                     }));
  return absl::OkStatus();
}

}  // namespace

// (logits [T, V], target i64 [T], ignore_index) -> loss_sum f32 [], count f32 [], lse f32 [T]
absl::StatusOr<OwnOp> MakeCrossEntropySum(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 3, 3));
  ASSIGN_OR_RETURN(const int64_t ignore_index, IntArgument(context.instruction, 2));
  return [ignore_index, name = ArgumentName(context, 1)](const OwnCall& call) {
    return RunForward(call, ignore_index, name);
  };
}

// logits [T, V] := (exp(logits - lse [T]) - onehot(target [T])) * grad []; ignored rows := 0.
// Arguments: logits, target, lse, grad, ignore_index.
absl::StatusOr<OwnOp> MakeCrossEntropyBackward(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 5, 0));
  ASSIGN_OR_RETURN(const int64_t ignore_index, IntArgument(context.instruction, 4));
  return [ignore_index](const OwnCall& call) { return RunBackward(call, ignore_index); };
}

}  // namespace autosp
