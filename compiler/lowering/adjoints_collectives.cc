// Adjoints of reshards: each is the opposite reshard.
#include "common/status_macros.h"
#include "compiler/lowering/backward_lowering.h"

namespace autosp {

absl::Status BackwardLowering::AllToAll(Adjoint& adjoint) {
  const ValueId operand = OperandsOf(adjoint.forward)[0];
  if (!Needs(operand)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const AxisList axes, AxesAttribute(adjoint.forward));
  const int64_t split = IntsAttribute(adjoint.forward, "split")[0];
  const int64_t concat = IntsAttribute(adjoint.forward, "concat")[0];
  AddGrad(operand,
          builder_.AllToAll(adjoint.grad(), concat, split, axes, builder_.value(operand).dims));
  return absl::OkStatus();
}

// all_gather: where each rank found a part of the gradient of the whole, the parts are summed and
// scattered; where all found the same, each takes its shard.
absl::Status BackwardLowering::AllGather(Adjoint& adjoint) {
  const ValueId operand = OperandsOf(adjoint.forward)[0];
  if (!Needs(operand)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const AxisList axes, AxesAttribute(adjoint.forward));
  const int64_t dim = IntsAttribute(adjoint.forward, "dim")[0];
  const std::vector<ProgramDim> dims = builder_.value(operand).dims;
  const AxisList partial = builder_.value(adjoint.grad()).partial.axes;
  const AxisList rest = Without(partial, axes);
  if (rest != partial) {
    const ValueId grad = ScaleTo(adjoint.grad(), Union(partial, axes));
    AddGrad(operand, builder_.ReduceScatter(grad, dim, axes, dims, {.axes = rest}));
    return absl::OkStatus();
  }
  const int64_t local = builder_.program().LocalSize(dims[dim]);
  AddGrad(operand,
          builder_.Slice(adjoint.grad(), dim, dims[dim],
                         ProgramBuilder::GroupIndex(builder_.program().mesh, axes, local)));
  return absl::OkStatus();
}

// Each position comes from one place or is padding, whose gradient is dropped: the other way round.
absl::Status BackwardLowering::ToShards(Adjoint& adjoint) {
  const ValueId operand = OperandsOf(adjoint.forward)[0];
  if (!Needs(operand)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int64_t dim, IntAttribute(adjoint.forward, "dim"));
  AddGrad(operand, builder_.FromShards(adjoint.grad(), dim, builder_.value(operand).dims[dim]));
  return absl::OkStatus();
}

absl::Status BackwardLowering::FromShards(Adjoint& adjoint) {
  const ValueId operand = OperandsOf(adjoint.forward)[0];
  if (!Needs(operand)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int64_t dim, IntAttribute(adjoint.forward, "dim"));
  AddGrad(operand,
          builder_.ToShards(adjoint.grad(), dim, builder_.value(operand).dims[dim], SymInt(0)));
  return absl::OkStatus();
}

// all_reduce: the gradient of each partial sum is the gradient of the sum.
absl::Status BackwardLowering::AllReduce(Adjoint& adjoint) {
  const ValueId operand = OperandsOf(adjoint.forward)[0];
  if (!Needs(operand)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const AxisList axes, AxesAttribute(adjoint.forward));
  ValueId grad = adjoint.grad();
  const AxisList partial = builder_.value(grad).partial.axes;
  const AxisList rest = Without(partial, axes);
  if (rest != partial) {
    grad = ScaleTo(grad, Union(partial, axes));
    grad = builder_.AllReduce(grad, axes);
  }
  AddGrad(operand, grad);
  return absl::OkStatus();
}

}  // namespace autosp
