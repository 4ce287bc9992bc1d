// Cross entropy as a sum over tokens and a count, so that the mean can be taken over all ranks; or
// one loss per token.
//
// Forward reads the logits once and keeps only lse [T]; backward turns the logits into their own
// gradient. PyTorch's pair of ops holds two more tensors of the size of the logits.
// T tokens, V classes; both local. With weights w [V] and smoothing e, the loss of a token of class
// c is (1 - e) w_c (lse - x_c) + e / V sum_k w_k (lse - x_k).
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
#include "compiler/ir/argument_access.h"
#include "worker/ops/cross_entropy_device.h"
#include "worker/ops/fast_exp.h"
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
  double* out = lse.mutable_data_ptr<double>();
  const int64_t num_classes = logits.size(1);
  const int64_t stride = logits.stride(0);
  at::parallel_for(0, logits.size(0), GrainRows(num_classes), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) out[t] = LogSumExp(data + t * stride, num_classes);
  });
}

// What the literals and the weights of an instruction say of the loss.
struct Form {
  int64_t ignore_index = 0;
  double smoothing = 0;
  const float* weights = nullptr;  // [V]; null: 1
  double total_weight = 0;         // their sum

  double Weight(int64_t c) const { return weights == nullptr ? 1.0 : weights[c]; }
};

template <typename T>
double TokenLoss(const T* row, int64_t num_classes, int64_t target, double lse, const Form& form) {
  const double own = lse - static_cast<float>(row[target]);
  if (form.smoothing == 0) return form.Weight(target) * own;
  double weighted = 0;
  for (int64_t c = 0; c < num_classes; ++c) weighted += form.Weight(c) * static_cast<float>(row[c]);
  const double all = form.total_weight * lse - weighted;
  return (1 - form.smoothing) * form.Weight(target) * own +
         form.smoothing / static_cast<double>(num_classes) * all;
}

// Serial, so that the sum does not depend on the number of threads.
template <typename T>
void SumLoss(const at::Tensor& logits, const at::Tensor& target, const at::Tensor& lse,
             const Form& form, const at::Tensor& loss, const at::Tensor& count) {
  const T* data = logits.const_data_ptr<T>();
  const int64_t* targets = target.const_data_ptr<int64_t>();
  const double* log_sums = lse.const_data_ptr<double>();
  double sum = 0;
  double sum_of_weights = 0;
  for (int64_t t = 0; t < target.numel(); ++t) {
    if (targets[t] == form.ignore_index) continue;
    sum += TokenLoss(data + t * logits.stride(0), logits.size(1), targets[t], log_sums[t], form);
    sum_of_weights += form.Weight(targets[t]);
  }
  *loss.mutable_data_ptr<float>() = static_cast<float>(sum);
  *count.mutable_data_ptr<float>() = static_cast<float>(sum_of_weights);
}

template <typename T>
void TokenLosses(const at::Tensor& logits, const at::Tensor& target, const at::Tensor& lse,
                 const Form& form, const at::Tensor& losses) {
  const T* data = logits.const_data_ptr<T>();
  const int64_t* targets = target.const_data_ptr<int64_t>();
  const double* log_sums = lse.const_data_ptr<double>();
  float* out = losses.mutable_data_ptr<float>();
  for (int64_t t = 0; t < target.numel(); ++t) {
    const bool is_ignored = targets[t] == form.ignore_index;
    out[t] = is_ignored ? 0.0F
                        : static_cast<float>(TokenLoss(data + t * logits.stride(0), logits.size(1),
                                                       targets[t], log_sums[t], form));
  }
}

// Past this probability, what is left to 1 is a small difference, which an lse in fp32 is too
// coarse for: the row's own is computed again.
constexpr double kNearlyCertain = 0.9;

// row := (softmax(row) a - e / V w) grad, where a is what the classes weigh together; the class of
// the token loses its own part as well.
template <typename T>
void BackwardRow(T* row, int64_t num_classes, int64_t target, float lse, float grad,
                 const Form& form) {
  const double own = (1 - form.smoothing) * form.Weight(target);
  const double share = form.smoothing / static_cast<double>(num_classes);
  const double all = own + share * form.total_weight;
  double log_p = static_cast<float>(row[target]) - lse;
  if (std::exp(log_p) > kNearlyCertain) {
    log_p = static_cast<float>(row[target]) - LogSumExp(row, num_classes);
  }
  // p all - own - share * weight, where all - own is share * (total weight).
  const double at_target =
      std::expm1(log_p) * all + share * (form.total_weight - form.Weight(target));
  const auto scale = static_cast<float>(all * grad);
  if (form.smoothing == 0) {
    SoftmaxTimes(row, num_classes, lse, scale);
  } else {
    const auto less = static_cast<float>(share * grad);
    for (int64_t c = 0; c < num_classes; ++c) {
      const auto weight = static_cast<float>(form.Weight(c));
      row[c] = static_cast<T>(FastExp(static_cast<float>(row[c]) - lse) * scale - less * weight);
    }
  }
  row[target] = static_cast<T>(static_cast<float>(at_target * grad));
}

// `grad` is [] or [T].
template <typename T>
void BackwardRows(const at::Tensor& logits, const at::Tensor& target, const at::Tensor& lse,
                  const at::Tensor& grad, const Form& form) {
  T* data = logits.mutable_data_ptr<T>();
  const int64_t* targets = target.const_data_ptr<int64_t>();
  const float* log_sums = lse.const_data_ptr<float>();
  const float* grads = grad.const_data_ptr<float>();
  const int64_t grad_stride = grad.dim() == 0 ? 0 : 1;
  const int64_t num_classes = logits.size(1);
  const int64_t stride = logits.stride(0);
  at::parallel_for(0, logits.size(0), GrainRows(num_classes), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      T* row = data + t * stride;
      if (targets[t] == form.ignore_index) {
        std::fill_n(row, num_classes, T(0));
      } else {
        BackwardRow(row, num_classes, targets[t], log_sums[t], grads[t * grad_stride], form);
      }
    }
  });
}

// Calls `run` with a number of the type of the logits.
template <typename Run>
void Dispatch(const at::Tensor& logits, const Run& run) {
  AT_DISPATCH_SWITCH(logits.scalar_type(), "cross_entropy",
                     AT_DISPATCH_CASE(at::kFloat, [&] { run(scalar_t()); })
                         AT_DISPATCH_CASE(at::kBFloat16, [&] { run(scalar_t()); })
                             AT_DISPATCH_CASE(at::kHalf, [&] { run(scalar_t()); }));
}

// The literals, which follow `first` tensors: ignore_index and, perhaps, weights and smoothing.
struct FormReader {
  size_t first = 0;
  int64_t ignore_index = 0;
  double smoothing = 0;
  bool has_weights = false;

  static absl::StatusOr<FormReader> Make(const Instruction& instruction, size_t first,
                                         size_t num_results) {
    const bool is_short = instruction.args.size() == first + 1;
    RETURN_IF_ERROR(CheckArity(instruction, is_short ? first + 1 : first + 3, num_results));
    FormReader reader{.first = first};
    ASSIGN_OR_RETURN(reader.ignore_index, IntArgument(instruction, first));
    if (is_short) return reader;
    reader.has_weights = TensorArgument(instruction.args, first + 1).valid();
    reader.smoothing = NumberArgument(instruction.args, first + 2).value_or(0);
    if (reader.smoothing < 0 || reader.smoothing > 1) {
      return InvalidArgument(instruction.op, ": a smoothing of ", reader.smoothing,
                             "; it must be from 0 to 1");
    }
    return reader;
  }

  DeviceLossForm DeviceForm(const OwnCall& call) const {
    return {.ignore_index = ignore_index,
            .smoothing = smoothing,
            .weights = has_weights ? call.args[first + 1][0] : at::Tensor()};
  }

  absl::StatusOr<Form> Read(const OwnCall& call, int64_t num_classes) const {
    Form form{.ignore_index = ignore_index, .smoothing = smoothing};
    form.total_weight = static_cast<double>(num_classes);
    if (!has_weights) return form;
    const at::Tensor& weights = call.args[first + 1][0];
    if (weights.scalar_type() != at::kFloat || weights.dim() != 1 ||
        weights.size(0) != num_classes || !weights.is_contiguous()) {
      return InvalidArgument("weights [", absl::StrJoin(weights.sizes(), ", "),
                             "] must be contiguous f32 of ", num_classes, " classes");
    }
    form.weights = weights.const_data_ptr<float>();
    form.total_weight = 0;
    for (int64_t c = 0; c < num_classes; ++c) form.total_weight += form.weights[c];
    return form;
  }
};

// The lse in fp64, and what the logits must be; shared by both forwards. The loss of a token that
// is all but certain is a small difference of large numbers.
absl::StatusOr<at::Tensor> Begin(const OwnCall& call, const FormReader& reader,
                                 const std::string& target_name) {
  const at::Tensor& logits = call.args[0][0];
  const at::Tensor& target = call.args[1][0];
  RETURN_IF_ERROR(CheckShapes(logits, target));
  RETURN_IF_ERROR(CheckTargets(target, logits.size(1), reader.ignore_index, target_name));
  at::Tensor lse = at::empty({logits.size(0)}, at::kDouble);
  Dispatch(logits, [&](auto number) { ForwardRows<decltype(number)>(logits, lse); });
  return lse;
}

// The same on a device, and the classes of targets checked there.
absl::StatusOr<DeviceLoss> BeginOnDevice(const OwnCall& call, const FormReader& reader,
                                         const std::string& target_name) {
  const at::Tensor& logits = call.args[0][0];
  const at::Tensor& target = call.args[1][0];
  RETURN_IF_ERROR(CheckShapes(logits, target));
  if (HasBadTargets(target, logits.size(1), reader.ignore_index)) {
    RETURN_IF_ERROR(CheckTargets(target.cpu(), logits.size(1), reader.ignore_index, target_name));
  }
  return TokenLossesOnDevice(logits, target, reader.DeviceForm(call));
}

absl::Status RunSum(const OwnCall& call, const FormReader& reader, const std::string& name) {
  if (call.args[0][0].is_cuda()) {
    ASSIGN_OR_RETURN(const DeviceLoss loss, BeginOnDevice(call, reader, name));
    call.results = {loss.losses.sum(at::kDouble).to(at::kFloat),
                    loss.weights.sum(at::kDouble).to(at::kFloat), loss.lse};
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const at::Tensor lse, Begin(call, reader, name));
  const at::Tensor& logits = call.args[0][0];
  ASSIGN_OR_RETURN(const Form form, reader.Read(call, logits.size(1)));
  const at::Tensor loss = at::empty({}, at::kFloat);
  const at::Tensor count = at::empty({}, at::kFloat);
  Dispatch(logits, [&](auto number) {
    SumLoss<decltype(number)>(logits, call.args[1][0], lse, form, loss, count);
  });
  call.results = {loss, count, lse.to(at::kFloat)};
  return absl::OkStatus();
}

absl::Status RunTokens(const OwnCall& call, const FormReader& reader, const std::string& name) {
  if (call.args[0][0].is_cuda()) {
    ASSIGN_OR_RETURN(const DeviceLoss loss, BeginOnDevice(call, reader, name));
    call.results = {loss.losses, loss.lse};
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const at::Tensor lse, Begin(call, reader, name));
  const at::Tensor& logits = call.args[0][0];
  ASSIGN_OR_RETURN(const Form form, reader.Read(call, logits.size(1)));
  const at::Tensor losses = at::empty({logits.size(0)}, at::kFloat);
  Dispatch(logits, [&](auto number) {
    TokenLosses<decltype(number)>(logits, call.args[1][0], lse, form, losses);
  });
  call.results = {losses, lse.to(at::kFloat)};
  return absl::OkStatus();
}

absl::Status RunBackward(const OwnCall& call, const FormReader& reader) {
  const at::Tensor& logits = call.args[0][0];
  const at::Tensor& target = call.args[1][0];
  const at::Tensor& grad = call.args[3][0];
  RETURN_IF_ERROR(CheckShapes(logits, target));
  if (grad.scalar_type() != at::kFloat || !grad.is_contiguous() ||
      (grad.dim() != 0 && grad.sizes() != target.sizes())) {
    return InvalidArgument("the gradient [", absl::StrJoin(grad.sizes(), ", "),
                           "] must be contiguous f32, one number or one for each token");
  }
  if (logits.is_cuda()) {
    LogitGradientsOnDevice(logits, target, grad, reader.DeviceForm(call));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const Form form, reader.Read(call, logits.size(1)));
  Dispatch(logits, [&](auto number) {
    BackwardRows<decltype(number)>(logits, target, call.args[2][0], grad, form);
  });
  return absl::OkStatus();
}

}  // namespace

// (logits [T, V], target i64 [T], ignore_index[, weights f32 [V] or none, smoothing])
//   -> loss_sum f32 [], count f32 [] (of valid tokens, by weight), lse f32 [T]
absl::StatusOr<OwnOp> MakeCrossEntropySum(const OwnOpContext& context) {
  ASSIGN_OR_RETURN(const FormReader reader, FormReader::Make(context.instruction, 2, 3));
  return [reader, name = ArgumentName(context, 1)](const OwnCall& call) {
    return RunSum(call, reader, name);
  };
}

// The same arguments -> loss f32 [T], 0 where ignored, lse f32 [T]
absl::StatusOr<OwnOp> MakeCrossEntropy(const OwnOpContext& context) {
  ASSIGN_OR_RETURN(const FormReader reader, FormReader::Make(context.instruction, 2, 2));
  return [reader, name = ArgumentName(context, 1)](const OwnCall& call) {
    return RunTokens(call, reader, name);
  };
}

// logits [T, V] := their gradient; ignored rows := 0.
// Arguments: logits, target, lse, grad f32 [] or [T], and from ignore_index on as in the forward.
absl::StatusOr<OwnOp> MakeCrossEntropyBackward(const OwnOpContext& context) {
  ASSIGN_OR_RETURN(const FormReader reader, FormReader::Make(context.instruction, 4, 0));
  return [reader](const OwnCall& call) { return RunBackward(call, reader); };
}

}  // namespace autosp
