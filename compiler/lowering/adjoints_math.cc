// Adjoints of arithmetic, products and the loss; and the tape for all other ops.
#include <algorithm>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/lowering/backward_lowering.h"
#include "compiler/rules/op_rule.h"

namespace autosp {

// add, sub: the gradient itself, times alpha for the second operand.
absl::Status BackwardLowering::Add(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  const double sign = forward.op == "aten.sub.Tensor" ? -1.0 : 1.0;
  const double alpha = sign * NumberArgument(forward.args, 2).value_or(1.0);
  for (size_t arg : {0, 1}) {
    const ValueId operand = TensorArgument(forward.args, arg);
    if (!operand.valid() || !Needs(operand)) continue;
    ValueId grad = SumTo(forward, adjoint.grad(), operand);
    if (arg == 1 && alpha != 1.0) grad = Scaled(grad, alpha);
    AddGrad(operand, grad);
  }
  return absl::OkStatus();
}

absl::Status BackwardLowering::Neg(Adjoint& adjoint) {
  AddGrad(OperandsOf(adjoint.forward)[0], Scaled(adjoint.grad(), -1.0));
  return absl::OkStatus();
}

// The same elements are dropped: the mask is made again, not kept.
absl::Status BackwardLowering::Dropout(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  const ValueId grad = builder_.Call("autosp.dropout", {adjoint.grad(), forward.args[1]},
                                     builder_.Like(adjoint.grad()));
  builder_.body().back().attributes = forward.attributes;
  AddGrad(OperandsOf(forward)[0], grad);
  return absl::OkStatus();
}

absl::Status BackwardLowering::Cast(Adjoint& adjoint) {
  const ValueId operand = OperandsOf(adjoint.forward)[0];
  if (Needs(operand)) AddGrad(operand, CastTo(operand, adjoint.grad()));
  return absl::OkStatus();
}

// By a number: scaled. By a tensor: the tape.
absl::Status BackwardLowering::MulOrDiv(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  const ValueId operand = TensorArgument(forward.args, 0);
  const double factor = NumberArgument(forward.args, 1).value_or(0.0);
  const bool by_number = operand.valid() && !TensorArgument(forward.args, 1).valid() &&
                         factor != 0.0 &&
                         builder_.value(operand).dtype == builder_.value(adjoint.grad()).dtype;
  if (!by_number) return Taped(adjoint);
  // As autograd does: multiply for mul, divide for div.
  ProgramValue type = builder_.Like(adjoint.grad());
  type.strides =
      ElementwiseStrides(builder_.LocalSizes(adjoint.grad()), {builder_.Shape(adjoint.grad())});
  // A share of a number has a share of its gradient.
  type.partial = PartialOf(forward, operand, adjoint.grad());
  AddGrad(operand, builder_.Call(forward.op, {adjoint.grad(), forward.args[1]}, std::move(type)));
  return absl::OkStatus();
}

// Spreads the gradient over what was summed; a mean divides by the number of elements. Dims that
// are split were not averaged here (globalize-means), so local counts are global ones.
absl::Status BackwardLowering::SumOrMean(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  const ValueId operand = OperandsOf(forward)[0];
  if (!Needs(operand)) return absl::OkStatus();
  const std::vector<ProgramDim> dims = builder_.value(operand).dims;
  const auto rank = static_cast<int64_t>(dims.size());
  std::vector<bool> reduced(dims.size(), false);
  const bool has_dims = forward.op == "aten.sum.dim_IntList" || forward.op == "aten.mean.dim";
  const auto* list = has_dims ? std::get_if<IntList>(&forward.args[1]) : nullptr;
  if (list != nullptr && !list->empty()) {
    for (const SymInt& dim : *list) reduced[dim.value < 0 ? dim.value + rank : dim.value] = true;
  } else {
    reduced.assign(dims.size(), true);
  }
  std::vector<ProgramDim> kept = dims;
  int64_t count = 1;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (!reduced[i]) continue;
    count *= builder_.program().LocalSize(dims[i]);
    kept[i].clear();
  }
  ValueId grad = CastTo(operand, adjoint.grad());
  const bool is_mean = forward.op == "aten.mean.dim" || forward.op == "aten.mean.default";
  if (is_mean) {
    ProgramValue type = builder_.Like(grad);
    grad = builder_.Call("aten.div.Tensor", {grad, SymInt(count)}, std::move(type));
  }
  grad = builder_.Expand(builder_.View(grad, kept), dims);
  builder_.program().value(grad).partial = PartialOf(forward, operand, adjoint.grad());
  AddGrad(operand, grad);
  return absl::OkStatus();
}

absl::Status BackwardLowering::Linear(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  const ValueId input = TensorArgument(forward.args, 0);
  const ValueId weight = TensorArgument(forward.args, 1);
  const ValueId bias = TensorArgument(forward.args, 2);
  // The weight first: its product reads the input, which the input's gradient does not.
  AddMatrixGrad(adjoint, weight, adjoint.grad(), input);
  if (bias.valid() && Needs(bias)) AddGrad(bias, SumTo(forward, adjoint.grad(), bias));
  if (Needs(input)) {
    AddGrad(input, Matmul(adjoint.grad(), weight, builder_.value(input).dims,
                          PartialOf(forward, input, adjoint.grad())));
  }
  return absl::OkStatus();
}

namespace {

// Over what each dimension before the matrix is split.
std::vector<AxisList> SplitsOfBatch(const ProgramValue& value) {
  std::vector<AxisList> splits;
  for (size_t i = 0; i + 2 < value.dims.size(); ++i) {
    AxisList& axes = splits.emplace_back();
    for (const DimFactor& factor : value.dims[i]) {
      axes.insert(axes.end(), factor.axes.begin(), factor.axes.end());
    }
  }
  return splits;
}

}  // namespace

absl::Status BackwardLowering::MatmulAdjoint(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  const ValueId a = TensorArgument(forward.args, 0);
  const ValueId b = TensorArgument(forward.args, 1);
  const size_t a_rank = builder_.value(a).dims.size();
  const size_t b_rank = builder_.value(b).dims.size();
  const Sizes a_sizes = builder_.LocalSizes(a);
  const Sizes b_sizes = builder_.LocalSizes(b);
  // One head of a rank beside one head of all has the same size, and is stretched.
  const bool same_batch =
      a_rank == b_rank && std::equal(a_sizes.begin(), a_sizes.end() - 2, b_sizes.begin()) &&
      std::ranges::equal(SplitsOfBatch(builder_.value(a)), SplitsOfBatch(builder_.value(b)));
  if (a_rank < 2 || b_rank < 2 || !(same_batch || b_rank == 2)) return Taped(adjoint);
  if (b_rank == 2) {
    AddMatrixGrad(adjoint, b, a, adjoint.grad());
  } else if (Needs(b)) {
    AddGrad(b, Matmul(Transposed(a), adjoint.grad(), builder_.value(b).dims,
                      PartialOf(forward, b, adjoint.grad())));
  }
  if (Needs(a)) {
    AddGrad(a, Matmul(adjoint.grad(), Transposed(b), builder_.value(a).dims,
                      PartialOf(forward, a, adjoint.grad())));
  }
  return absl::OkStatus();
}

// bias + a x b, with beta and alpha of 1.
absl::Status BackwardLowering::Addmm(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  if (NumberArgument(forward.args, 3).value_or(1.0) != 1.0 ||
      NumberArgument(forward.args, 4).value_or(1.0) != 1.0) {
    return Taped(adjoint);
  }
  const ValueId bias = TensorArgument(forward.args, 0);
  const ValueId a = TensorArgument(forward.args, 1);
  const ValueId b = TensorArgument(forward.args, 2);
  AddMatrixGrad(adjoint, b, a, adjoint.grad());
  if (Needs(bias)) AddGrad(bias, SumTo(forward, adjoint.grad(), bias));
  if (Needs(a)) {
    AddGrad(a, Matmul(adjoint.grad(), Transposed(b), builder_.value(a).dims,
                      PartialOf(forward, a, adjoint.grad())));
  }
  return absl::OkStatus();
}

absl::Status BackwardLowering::Embedding(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  const ValueId weight = TensorArgument(forward.args, 0);
  const ValueId indices = TensorArgument(forward.args, 1);
  if (!Needs(weight)) return absl::OkStatus();
  if (FlagArgument(forward.args, 3).value_or(false)) {
    return Unimplemented("embedding with scale_grad_by_freq is not supported; set it to False");
  }
  ProgramValue type = builder_.Like(weight);
  type.partial = PartialOf(forward, weight, adjoint.grad());
  const SymInt rows(builder_.LocalSizes(weight)[0]);
  AddGrad(weight,
          builder_.Call("aten.embedding_dense_backward.default",
                        {adjoint.grad(), indices, rows, forward.args[2], false}, std::move(type)));
  return absl::OkStatus();
}

// The logits become their own gradient, in place, where nothing else reads them.
absl::Status BackwardLowering::CrossEntropy(Adjoint& adjoint) {
  const Instruction& forward = adjoint.forward;
  ValueId logits = TensorArgument(forward.args, 0);
  if (!adjoint.grads[0].valid() || !Needs(logits)) return absl::OkStatus();
  const ValueId operand = logits;
  const StorageId storage = builder_.value(logits).storage;
  const bool is_parameter =
      std::ranges::any_of(builder_.program().persistents, [&](const Persistent& persistent) {
        return builder_.value(persistent.value).storage == storage;
      });
  if (forward_reads_[storage] > 1 || is_parameter || builder_.IsStretched(logits)) {
    logits = builder_.Copy(logits);
  } else {
    forward_storages_.erase(storage);
  }
  // The gradient of a sum is one number; of losses per token, one for each.
  std::vector<Argument> args = {logits, forward.args[1], forward.results.back(),
                                builder_.Contiguous(adjoint.grads[0])};
  args.insert(args.end(), forward.args.begin() + 2, forward.args.end());
  builder_.Update("autosp.cross_entropy_backward_", std::move(args));
  ProgramValue type = builder_.Like(operand);
  type.strides = builder_.Shape(logits).strides;
  type.offset = builder_.value(logits).offset;
  type.partial = PartialOf(forward, operand, adjoint.grads[0]);
  AddGrad(operand, builder_.Alias("aten.alias.default", {logits}, logits, std::move(type)));
  return absl::OkStatus();
}

namespace {

// The values that a rule says its op keeps, each once.
std::vector<ValueId> SavedValues(const OpRule& rule, const std::vector<ValueId>& operands,
                                 const std::vector<ValueId>& results,
                                 const std::vector<bool>& operand_needs) {
  std::vector<ValueId> saved;
  for (const SavedTensor& tensor : SavedTensors(rule, operand_needs)) {
    const std::vector<ValueId>& from = tensor.is_result ? results : operands;
    if (tensor.index < from.size() && std::ranges::count(saved, from[tensor.index]) == 0) {
      saved.push_back(from[tensor.index]);
    }
  }
  return saved;
}

}  // namespace

std::vector<TensorExtent> BackwardLowering::Extents(const std::vector<ValueId>& values) const {
  std::vector<TensorExtent> extents;
  for (ValueId id : values) {
    const ProgramValue& value = builder_.value(id);
    extents.push_back({.numel = builder_.program().LocalNumel(value),
                       .dtype = value.dtype,
                       .needs_grad = Needs(id)});
  }
  return extents;
}

// Records the op in the forward and calls its derivative here. What the tape keeps is named by the
// op's rule; an op without one keeps what it keeps by itself.
absl::Status BackwardLowering::Taped(Adjoint& adjoint) {
  Instruction& forward = adjoint.forward;
  const std::vector<ValueId> operands = OperandsOf(forward);
  const std::vector<ValueId> results = forward.results;
  const OpRule* rule = FindOpRule(forward.op);
  IntList diff;
  std::vector<bool> operand_needs;
  for (size_t i = 0; i < operands.size(); ++i) {
    operand_needs.push_back(Needs(operands[i]));
    if (Needs(operands[i])) diff.push_back(SymInt(static_cast<int64_t>(i)));
  }
  if (diff.empty()) return absl::OkStatus();
  ProgramValue tape_type;
  tape_type.is_tape = true;
  const ValueId tape = builder_.Define("tape", std::move(tape_type));
  needs_grad_.resize(builder_.program().values.size(), false);
  // mul and div have explicit adjoints only for numbers, so kExplicit does not mean no tape.
  const bool is_known = rule != nullptr && rule->derivative == Derivative::kTaped;
  ValueList saved;
  if (is_known) {
    saved = SavedValues(*rule, operands, results, operand_needs);
  } else {
    // Whatever its derivative reads: operands and results stay, the tape holds the rest.
    for (const std::vector<ValueId>* side : {&operands, &results}) {
      for (ValueId id : *side) {
        if (std::ranges::count(saved, id) == 0) saved.push_back(id);
      }
    }
  }
  forward.kind = InstructionKind::kRecord;
  forward.attributes["diff"] = diff;
  forward.attributes["saves"] = saved;
  if (!is_known) forward.attributes["opaque"] = true;
  forward.results.push_back(tape);

  std::vector<Argument> args{tape};
  StridedShape grad_shape;
  ValueId any_grad;
  for (ValueId grad : adjoint.grads) {
    args.push_back(grad.valid() ? Argument(grad) : Argument(None{}));
    if (grad.valid() && !any_grad.valid()) any_grad = grad;
  }
  Instruction plain = forward;
  plain.results = results;
  std::vector<ValueId> vjp_results;
  for (const SymInt& position : diff) {
    const ValueId operand = operands[position.value];
    ProgramValue type = builder_.Like(operand);
    type.partial = PartialOf(plain, operand, any_grad);
    if (rule != nullptr && rule->layout == ResultLayout::kElementwise &&
        builder_.LocalSizes(operand) == builder_.LocalSizes(any_grad)) {
      type.strides = ElementwiseStrides(builder_.LocalSizes(operand),
                                        {builder_.Shape(any_grad), builder_.Shape(operand)});
    }
    vjp_results.push_back(builder_.Define("g", std::move(type)));
  }
  Instruction& vjp = builder_.Append(InstructionKind::kVjp, "", std::move(args), vjp_results);
  vjp.attributes["saved"] = saved;
  if (rule != nullptr) {
    vjp.workspace_bytes = VjpWorkspaceBytes(*rule, Extents(operands), Extents(results));
  }
  for (size_t i = 0; i < vjp_results.size(); ++i) {
    AddGrad(operands[diff[i].value], vjp_results[i]);
  }
  return absl::OkStatus();
}

}  // namespace autosp
