// Adjoints of views and of what moves elements.
#include <algorithm>

#include "common/errors.h"
#include "compiler/ir/argument_access.h"
#include "compiler/lowering/backward_lowering.h"

namespace autosp {

absl::Status BackwardLowering::PassThrough(Adjoint& adjoint) {
  AddGrad(OperandsOf(adjoint.forward)[0], adjoint.grad());
  return absl::OkStatus();
}

absl::Status BackwardLowering::View(Adjoint& adjoint) {
  const ValueId operand = OperandsOf(adjoint.forward)[0];
  if (Needs(operand)) {
    AddGrad(operand, builder_.View(adjoint.grad(), builder_.value(operand).dims));
  }
  return absl::OkStatus();
}

absl::Status BackwardLowering::Permute(Adjoint& adjoint) {
  const ValueId operand = OperandsOf(adjoint.forward)[0];
  const auto& order = std::get<IntList>(adjoint.forward.args[1]);
  std::vector<int64_t> inverse(order.size());
  for (size_t i = 0; i < order.size(); ++i) inverse[order[i].value] = static_cast<int64_t>(i);
  AddGrad(operand, builder_.Permute(adjoint.grad(), inverse));
  return absl::OkStatus();
}

absl::Status BackwardLowering::Expand(Adjoint& adjoint) {
  const ValueId operand = OperandsOf(adjoint.forward)[0];
  if (Needs(operand)) AddGrad(operand, SumTo(adjoint.forward, adjoint.grad(), operand));
  return absl::OkStatus();
}

ValueId BackwardLowering::GradBuffer(ValueId value, const Partial& partial) {
  ProgramValue type = builder_.Like(value);
  type.partial = partial;
  if (IsHalfParameter(value)) type.dtype = DType::kF32;
  const auto existing = grads_.find(value);
  if (existing != grads_.end() && IsExclusive(existing->second, 1) &&
      builder_.value(existing->second).partial == partial &&
      builder_.value(existing->second).dtype == type.dtype) {
    return existing->second;
  }
  return builder_.Zeros(std::move(type));
}

// The gradient of a slice is added into its place in a zeroed gradient of the whole; several slices
// of one value share that gradient.
absl::Status BackwardLowering::Slice(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  const ValueId operand = OperandsOf(forward)[0];
  if (!Needs(operand)) return absl::OkStatus();
  const ValueId result = forward.results[0];
  const int64_t dim = IntegerArgument(forward.args, 1).value_or(0);
  LinearExpr start{.base = IntegerArgument(forward.args, 2).value_or(0), .terms = {}};
  // Rank-dependent starts stand in the offset of the alias, beyond those of its operand.
  const int64_t stride = builder_.Shape(operand).strides[dim];
  const auto& inherited = builder_.value(operand).offset.terms;
  const auto& terms = builder_.value(result).offset.terms;
  for (size_t i = inherited.size(); i < terms.size(); ++i) {
    start.terms.emplace_back(terms[i].first, terms[i].second / stride);
  }
  const ValueId buffer = GradBuffer(operand, PartialOf(forward, operand, adjoint.grad()));
  const ValueId part = builder_.Slice(buffer, dim, builder_.value(result).dims[dim], start,
                                      IntegerArgument(forward.args, 4).value_or(0));
  builder_.Accumulate(part, adjoint.grad());
  const auto existing = grads_.find(operand);
  if (existing == grads_.end() || existing->second != buffer) AddGrad(operand, buffer);
  return absl::OkStatus();
}

absl::Status BackwardLowering::Select(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  const ValueId operand = OperandsOf(forward)[0];
  if (!Needs(operand)) return absl::OkStatus();
  const ValueId buffer = GradBuffer(operand, PartialOf(forward, operand, adjoint.grad()));
  builder_.Accumulate(builder_.Select(buffer, IntegerArgument(forward.args, 1).value_or(0),
                                      IntegerArgument(forward.args, 2).value_or(0)),
                      adjoint.grad());
  const auto existing = grads_.find(operand);
  if (existing == grads_.end() || existing->second != buffer) AddGrad(operand, buffer);
  return absl::OkStatus();
}

absl::Status BackwardLowering::Cat(Adjoint& adjoint) {
  int64_t dim = IntegerArgument(adjoint.forward.args, 1).value_or(0);
  if (dim < 0) dim += static_cast<int64_t>(builder_.value(adjoint.grad()).dims.size());
  int64_t start = 0;
  for (ValueId operand : OperandsOf(adjoint.forward)) {
    const ProgramDim part = builder_.value(operand).dims[dim];
    const int64_t size = builder_.program().LocalSize(part);
    if (Needs(operand)) {
      const ValueId slice = builder_.Slice(adjoint.grad(), dim, part, {.base = start, .terms = {}});
      AddGrad(operand, CastTo(operand, slice));
    }
    start += size;
  }
  return absl::OkStatus();
}

absl::Status BackwardLowering::Pad(Adjoint& adjoint) {
  const ValueId operand = OperandsOf(adjoint.forward)[0];
  if (!Needs(operand)) return absl::OkStatus();
  const auto& pads = std::get<IntList>(adjoint.forward.args[1]);
  ValueId grad = adjoint.grad();
  if (std::ranges::any_of(pads, [](const SymInt& pad) { return pad.value < 0; })) {
    // What padding cut off has gradient zero.
    IntList opposite;
    for (const SymInt& pad : pads) opposite.emplace_back(-pad.value);
    ProgramValue type = builder_.Like(operand);
    type.partial = builder_.value(grad).partial;
    type.strides.clear();
    AddGrad(operand, builder_.Call("aten.constant_pad_nd.default", {grad, opposite, SymInt(0)},
                                   std::move(type)));
    return absl::OkStatus();
  }
  const auto rank = static_cast<int64_t>(builder_.value(operand).dims.size());
  for (size_t i = 0; i + 1 < pads.size(); i += 2) {
    if (pads[i].value == 0 && pads[i + 1].value == 0) continue;
    const int64_t dim = rank - 1 - static_cast<int64_t>(i / 2);
    grad = builder_.Slice(grad, dim, builder_.value(operand).dims[dim],
                          {.base = pads[i].value, .terms = {}});
  }
  AddGrad(operand, grad);
  return absl::OkStatus();
}

}  // namespace autosp
