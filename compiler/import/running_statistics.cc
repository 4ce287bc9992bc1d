#include "compiler/import/running_statistics.h"

#include <utility>

#include "compiler/ir/argument_access.h"

namespace autosp {
namespace {

// (input, weight, bias, running_mean, running_var, training, momentum, ...)
constexpr size_t kRunningMean = 3;
constexpr size_t kTraining = 5;
constexpr size_t kMomentum = 6;
constexpr std::string_view kBatchNorm = "aten.batch_norm.default";
constexpr std::string_view kInstanceNorm = "aten.instance_norm.default";

// momentum * of + (1 - momentum) * running, in the type of the buffer.
BufferUpdate Blend(GraphBuilder& builder, const NodeContext& context, ValueId running, ValueId of,
                   double momentum) {
  const TensorType type = builder.type(running);
  const ValueId old = builder.Emit("aten.mul.Tensor", {running, 1 - momentum},
                                   builder.name(running), type, context);
  if (builder.type(of).dtype != type.dtype) of = builder.EmitCast(of, type.dtype, context);
  const ValueId value =
      builder.Emit("aten.add.Tensor", {old, of, momentum}, builder.name(running), type, context);
  return {.target = running, .value = value};
}

// Statistics of each sequence over its places, and the mean of those of all sequences.
std::vector<BufferUpdate> OfInstances(GraphBuilder& builder, Node call) {
  const NodeContext context{call.source, /*no_grad=*/true};
  const ValueId x = TensorArgument(call.args, 0);
  const ValueId running_mean = TensorArgument(call.args, kRunningMean);
  const ValueId running_var = TensorArgument(call.args, kRunningMean + 1);
  const double momentum = NumberArgument(call.args, kMomentum).value_or(0);
  TensorType each = builder.type(x);
  IntList places;
  for (int64_t dim = 2; dim < each.rank(); ++dim) places.emplace_back(dim);
  each.sizes.resize(2);
  each.strides = {each.sizes[1].value, 1};
  TensorType all = each;
  all.sizes.erase(all.sizes.begin());
  all.strides = {1};
  const auto mean_of_all = [&](ValueId of) {
    return builder.Emit("aten.mean.dim", {of, IntList{SymInt(0)}, false, None{}}, "mean", all,
                        context);
  };
  const ValueId means =
      builder.Emit("aten.mean.dim", {x, places, false, None{}}, "mean", each, context);
  const ValueId variances =
      builder.Emit("aten.var.correction", {x, places, SymInt(1), false}, "var", each, context);
  std::vector<BufferUpdate> updates = {
      Blend(builder, context, running_mean, mean_of_all(means), momentum),
      Blend(builder, context, running_var, mean_of_all(variances), momentum)};
  call.args[kRunningMean] = None{};
  call.args[kRunningMean + 1] = None{};
  builder.Append(std::move(call));
  return updates;
}

std::vector<BufferUpdate> OfBatch(GraphBuilder& builder, Node call) {
  const ValueId running_mean = TensorArgument(call.args, kRunningMean);
  const ValueId running_var = TensorArgument(call.args, kRunningMean + 1);
  // (..., momentum, eps, cudnn_enabled)
  call.op = kBatchNormWithStatistics;
  call.args.resize(kMomentum + 2);
  const auto like = [&](ValueId value) {
    return builder.AddValue(builder.name(value), TensorType(builder.type(value)));
  };
  for (const ValueId statistic : {running_mean, running_var, running_mean, running_var}) {
    call.outputs.push_back(like(statistic));
  }
  std::vector<BufferUpdate> updates = {{running_mean, call.outputs[3]},
                                       {running_var, call.outputs[4]}};
  builder.Append(std::move(call));
  return updates;
}

}  // namespace

bool KeepsRunningStatistics(std::string_view op) {
  return op == kBatchNorm || op == kInstanceNorm || op == kBatchNormWithStatistics;
}

bool WritesRunningStatistics(const Node& call) {
  return (call.op == kBatchNorm || call.op == kInstanceNorm) &&
         TensorArgument(call.args, kRunningMean).valid() &&
         TensorArgument(call.args, kRunningMean + 1).valid() &&
         FlagArgument(call.args, kTraining).value_or(false);
}

std::vector<BufferUpdate> AppendWithStatistics(GraphBuilder& builder, Node call) {
  return call.op == kBatchNorm ? OfBatch(builder, std::move(call))
                               : OfInstances(builder, std::move(call));
}

}  // namespace autosp
