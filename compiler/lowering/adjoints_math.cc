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
  // Rows of a half type are added up in fp32 over all ranks.
  const ValueId grad =
      IsHalfParameter(weight) ? builder_.Cast(adjoint.grad(), DType::kF32) : adjoint.grad();
  ProgramValue type = builder_.Like(weight);
  type.dtype = builder_.value(grad).dtype;
  type.partial = PartialOf(forward, weight, grad);
  const SymInt rows(builder_.LocalSizes(weight)[0]);
  AddGrad(weight, builder_.Call("aten.embedding_dense_backward.default",
                                {grad, indices, rows, forward.args[2], false}, std::move(type)));
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

// Whether the derivative of the op sums the gradient of an operand by itself: of the weights and
// biases of norms, and of tables.
bool IsSummedInKernel(const Instruction& forward, size_t operand) {
  const std::string& op = forward.op;
  const bool is_norm = op == "aten.native_layer_norm.default" || op == "aten.rms_norm.default" ||
                       op == "aten.group_norm.default";
  const bool looks_up =
      op == "aten.index.Tensor" || op == "aten.index_select.default" || op == "aten.gather.default";
  return (is_norm && operand > 0) || (looks_up && operand == 0);
}

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

// `needs`: of which a gradient is asked for; none where it is short.
std::vector<TensorExtent> BackwardLowering::Extents(const std::vector<ValueId>& values,
                                                    const std::vector<bool>& needs) const {
  std::vector<TensorExtent> extents;
  for (size_t i = 0; i < values.size(); ++i) {
    const ProgramValue& value = builder_.value(values[i]);
    extents.push_back({.numel = builder_.program().LocalNumel(value),
                       .dtype = value.dtype,
                       .needs_grad = i < needs.size() && needs[i]});
  }
  return extents;
}

// Makes an op a record, for the derivatives of the operands in `wanted`. What its tape keeps is
// named by the op's rule; an op without one keeps what it keeps by itself.
void BackwardLowering::Record(Instruction& call, const std::vector<bool>& wanted) {
  const std::vector<ValueId> operands = OperandsOf(call);
  const OpRule* rule = FindOpRule(call.op);
  IntList diff;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (wanted[i]) diff.push_back(SymInt(static_cast<int64_t>(i)));
  }
  // mul and div have explicit adjoints only for numbers, so kExplicit does not mean no tape.
  const bool is_known = rule != nullptr && rule->derivative == Derivative::kTaped;
  ValueList saved;
  if (is_known) {
    saved = SavedValues(*rule, operands, call.results, wanted);
  } else {
    // Whatever its derivative reads: operands and results stay, the tape holds the rest.
    const std::vector<ValueId>& results = call.results;
    for (const std::vector<ValueId>* side : {&operands, &results}) {
      for (ValueId id : *side) {
        if (std::ranges::count(saved, id) == 0) saved.push_back(id);
      }
    }
  }
  ProgramValue tape_type;
  tape_type.is_tape = true;
  const ValueId tape = builder_.Define("tape", std::move(tape_type));
  needs_grad_.resize(builder_.program().values.size(), false);
  call.kind = InstructionKind::kRecord;
  call.attributes["diff"] = std::move(diff);
  call.attributes["saves"] = std::move(saved);
  if (!is_known) call.attributes["opaque"] = true;
  call.results.push_back(tape);
}

// The gradients of the operands that a record is made for, in their order.
std::vector<ValueId> BackwardLowering::Vjp(const Instruction& record,
                                           const std::vector<ValueId>& grads) {
  const std::vector<ValueId> operands = OperandsOf(record);
  Instruction plain = record;
  plain.results.pop_back();
  std::vector<Argument> args{record.results.back()};
  ValueId any_grad;
  for (ValueId grad : grads) {
    args.push_back(grad.valid() ? Argument(grad) : Argument(None{}));
    if (grad.valid() && !any_grad.valid()) any_grad = grad;
  }
  const OpRule* rule = FindOpRule(record.op);
  std::vector<ValueId> results;
  std::vector<bool> wanted(operands.size(), false);
  for (const int64_t position : IntsAttribute(record, "diff")) {
    wanted[position] = true;
    const ValueId operand = operands[position];
    ProgramValue type = builder_.Like(operand);
    type.partial = PartialOf(plain, operand, any_grad);
    if (rule != nullptr && rule->layout == ResultLayout::kElementwise &&
        builder_.LocalSizes(operand) == builder_.LocalSizes(any_grad)) {
      type.strides = ElementwiseStrides(builder_.LocalSizes(operand),
                                        {builder_.Shape(any_grad), builder_.Shape(operand)});
    }
    results.push_back(builder_.Define("g", std::move(type)));
  }
  Instruction& vjp = builder_.Append(InstructionKind::kVjp, "", std::move(args), results);
  vjp.attributes["saved"] = record.attributes.at("saves");
  if (rule != nullptr) {
    vjp.workspace_bytes =
        VjpWorkspaceBytes(*rule, Extents(operands, wanted), Extents(plain.results, {}));
  }
  return results;
}

// Records the op in the forward and calls its derivative here.
absl::Status BackwardLowering::Taped(Adjoint& adjoint) {
  Instruction& forward = adjoint.forward;
  const std::vector<ValueId> operands = OperandsOf(forward);
  std::vector<bool> exact;
  std::vector<bool> wanted;
  for (size_t i = 0; i < operands.size(); ++i) {
    const bool needs = Needs(operands[i]);
    exact.push_back(needs && IsSummedInKernel(forward, i) && IsHalfParameter(operands[i]));
    wanted.push_back(needs && !exact[i]);
  }
  if (std::ranges::count(exact, true) > 0) TapedInF32(adjoint, exact);
  if (std::ranges::count(wanted, true) == 0) return absl::OkStatus();
  Record(forward, wanted);
  const std::vector<ValueId> results = Vjp(forward, adjoint.grads);
  size_t next = 0;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (wanted[i]) AddGrad(operands[i], results[next++]);
  }
  return absl::OkStatus();
}

// The gradient of a parameter that a kernel sums over rows, and would round to the parameter's half
// type on each rank: of the same op in fp32, which is made once more for it.
void BackwardLowering::TapedInF32(const Adjoint& adjoint, const std::vector<bool>& wanted) {
  const auto widened = [this](ValueId id) {
    return id.valid() && IsHalf(builder_.value(id).dtype) ? builder_.Cast(id, DType::kF32) : id;
  };
  Instruction call = adjoint.forward;
  for (Argument& argument : call.args)
    ForEachValue(argument, [&](ValueId& id) { id = widened(id); });
  for (ValueId& result : call.results) {
    ProgramValue type = builder_.Like(result);
    if (IsHalf(type.dtype)) type.dtype = DType::kF32;
    result = builder_.Define("v", std::move(type));
  }
  std::vector<ValueId> grads;
  for (ValueId grad : adjoint.grads) grads.push_back(widened(grad));
  Record(call, wanted);
  call.phase = builder_.phase();
  builder_.body().push_back(call);
  const std::vector<ValueId> results = Vjp(call, grads);
  const std::vector<ValueId> operands = OperandsOf(adjoint.forward);
  size_t next = 0;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (wanted[i]) AddGrad(operands[i], results[next++]);
  }
}

}  // namespace autosp
