// Adjoints of attention.
#include <variant>

#include "common/errors.h"
#include "compiler/ir/argument_access.h"
#include "compiler/lowering/backward_lowering.h"
#include "compiler/lowering/block_attention.h"

namespace autosp {
absl::Status BackwardLowering::FlashAttention(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  const ValueId mask = TensorArgument(forward.args, 5);
  if (mask.valid() && Needs(mask)) {
    return Unimplemented("a trained attention bias is not supported yet; freeze it");
  }
  std::vector<ValueId> grads;
  for (size_t arg : {0, 1, 2}) {
    const ValueId operand = TensorArgument(forward.args, arg);
    ProgramValue type = builder_.Like(operand);
    type.partial = PartialOf(forward, operand, adjoint.grad());
    // The kernel writes its gradients as [B, S, N, H].
    const Sizes sizes = builder_.LocalSizes(operand);
    type.strides = {sizes[1] * sizes[2] * sizes[3], sizes[3], sizes[1] * sizes[3], 1};
    grads.push_back(builder_.Define("g", std::move(type)));
  }
  builder_.Append(
      InstructionKind::kCall, "aten._scaled_dot_product_flash_attention_for_cpu_backward.default",
      {adjoint.grad(), forward.args[0], forward.args[1], forward.args[2], forward.results[0],
       forward.results[1], forward.args[3], forward.args[4], forward.args[5], forward.args[6]},
      grads);
  for (size_t arg : {0, 1, 2}) AddGrad(TensorArgument(forward.args, arg), grads[arg]);
  return absl::OkStatus();
}

// Keys and values travel again, and their gradients, in fp32, one hop behind them: after as many
// hops as the ring has members each is home, with what every member has added. Where keys are
// gathered, every member has the sums of its queries for all of them.
absl::Status BackwardLowering::BlockAttention(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  const bool is_gathered = KeysAreGathered(forward);
  const auto zeros = [&](ValueId operand, ProgramValue type) {
    type.dtype = DType::kF32;
    type.partial = PartialOf(forward, operand, adjoint.grad());
    return type;
  };
  const auto key_zeros = [&](size_t arg) {
    const ValueId operand = TensorArgument(forward.args, arg);
    if (!is_gathered) return builder_.Zeros(zeros(operand, builder_.Like(operand)));
    ProgramValue type = zeros(operand, GatheredOverRing(builder_, operand));
    type.partial.axes = Union(type.partial.axes, {Axis::kRing});
    return builder_.Zeros(std::move(type));
  };
  const ValueId query = TensorArgument(forward.args, 0);
  const ValueId query_grad = builder_.Zeros(zeros(query, builder_.Like(query)));
  std::vector<ValueId> kv_grads = {key_zeros(1), key_zeros(2)};
  const int64_t workspace_bytes =
      AttendBlockBackwardWorkspace(HopShape(builder_.program(), forward));
  // The kernel reads rows.
  ValueId grad = adjoint.grad();
  if (builder_.Shape(grad).strides.back() != 1) grad = builder_.Copy(grad);
  const bool travels = !is_gathered && std::get<std::string>(forward.attributes.at("axes")) != "";
  ForEachHop(builder_, forward, [&](int64_t hop, ValueId key, ValueId value) {
    builder_.Update(
        "autosp.attend_block_backward_",
        {query_grad, kv_grads[0], kv_grads[1], grad, forward.args[0], key, value,
         forward.results[0], forward.results[1], forward.args[3], forward.args[4], SymInt(hop)},
        forward.attributes);
    builder_.body().back().workspace_bytes = workspace_bytes;
    if (!travels) return;
    kv_grads = StartHop(builder_, kv_grads);
    builder_.Append(InstructionKind::kWait, "", {kv_grads[0], kv_grads[1]}, {});
  });
  if (is_gathered) kv_grads = ScatterOverRing(builder_, kv_grads);
  AddGrad(query, builder_.Cast(query_grad, builder_.value(query).dtype));
  for (size_t i : {0, 1}) {
    const ValueId operand = TensorArgument(forward.args, i + 1);
    AddGrad(operand, builder_.Cast(kv_grads[i], builder_.value(operand).dtype));
  }
  return absl::OkStatus();
}

}  // namespace autosp
