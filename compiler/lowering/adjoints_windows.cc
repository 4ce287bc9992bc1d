// Adjoints of shifts and convolutions over tokens: what depended on tokens before depends on
// gradients behind, so the borders that are exchanged are those of the gradient.
#include <algorithm>
#include <cstdlib>

#include "compiler/ir/argument_access.h"
#include "compiler/lowering/backward_lowering.h"
#include "compiler/lowering/token_edges.h"

namespace autosp {

// (x, edges, dim, by, wraps) {pad}: the shift by as much the other way. Padding has no gradient.
absl::Status BackwardLowering::TokenShift(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  const ValueId operand = OperandsOf(forward)[0];
  if (!Needs(operand)) return absl::OkStatus();
  const int64_t dim = IntegerArgument(forward.args, 2).value_or(0);
  const int64_t by = -IntegerArgument(forward.args, 3).value_or(0);
  const Argument edges = GatherEdges(builder_, adjoint.grad(), dim, std::max<int64_t>(by, 0),
                                     std::max<int64_t>(-by, 0));
  ProgramValue type = builder_.Like(operand);
  type.partial = PartialOf(forward, operand, adjoint.grad());
  const ValueId grad =
      builder_.Call(forward.op, {adjoint.grad(), edges, SymInt(dim), SymInt(by), forward.args[4]},
                    std::move(type));
  builder_.body().back().attributes["pad"] = SymInt(0);
  builder_.body().back().workspace_bytes =
      ShiftWorkspaceBytes(builder_.program(), adjoint.grad(), dim, std::abs(by), grad);
  AddGrad(operand, grad);
  return absl::OkStatus();
}

// (x, weight, bias, edges, before, dilation) {pad}
absl::Status BackwardLowering::TokenConv(Adjoint& adjoint) {
  constexpr int64_t kTokens = 2;
  const Instruction& forward = adjoint.forward;
  const ValueId operand = TensorArgument(forward.args, 0);
  const ValueId weight = TensorArgument(forward.args, 1);
  const ValueId bias = TensorArgument(forward.args, 2);
  const ValueId grad = adjoint.grad();
  const int64_t before = IntegerArgument(forward.args, 4).value_or(0);
  const int64_t dilation = IntegerArgument(forward.args, 5).value_or(1);
  const int64_t after = (builder_.LocalSizes(weight)[kTokens] - 1) * dilation - before;
  if (Needs(operand)) {
    const Argument edges = GatherEdges(builder_, grad, kTokens, after, before);
    ProgramValue type = builder_.Like(operand);
    type.partial = PartialOf(forward, operand, grad);
    const ValueId result =
        builder_.Call("autosp.token_conv_input_grad",
                      {grad, weight, edges, SymInt(before), SymInt(dilation)}, std::move(type));
    builder_.body().back().workspace_bytes =
        ConvWorkspaceBytes(builder_.program(), grad, before + after, result);
    AddGrad(operand, result);
  }
  if (Needs(weight)) {
    ProgramValue type = builder_.Like(weight);
    type.partial = PartialOf(forward, weight, grad);
    const ValueId result = builder_.Call(
        "autosp.token_conv_weight_grad",
        {grad, operand, forward.args[3], SymInt(before), SymInt(dilation)}, std::move(type));
    builder_.body().back().workspace_bytes =
        WeightGradWorkspaceBytes(builder_.program(), operand, before + after, grad, weight);
    AddGrad(weight, result);
  }
  if (bias.valid() && Needs(bias)) {
    AddGrad(bias, CastTo(bias, SumOver(forward, grad, bias, {0, kTokens}, /*keep=*/false)));
  }
  return absl::OkStatus();
}

}  // namespace autosp
