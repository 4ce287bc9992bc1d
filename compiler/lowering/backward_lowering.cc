#include "compiler/lowering/backward_lowering.h"

#include <algorithm>

#include "common/status_macros.h"

namespace autosp {

BackwardLowering::BackwardLowering(ProgramBuilder& builder,
                                   const std::map<ValueId, ValueId>& gradients,
                                   const std::set<ValueId>& stopped)
    : builder_(builder), gradients_(gradients), stopped_(stopped) {
  for (const auto& [parameter, gradient] : gradients_) {
    parameter_storages_.insert(builder_.value(parameter).storage);
  }
}

const std::map<std::string, BackwardLowering::AdjointFn, std::less<>>&
BackwardLowering::AdjointTable() {
  using B = BackwardLowering;
  static const auto& table = *new std::map<std::string, AdjointFn, std::less<>>{
      {"aten.view.default", &B::View},
      {"aten.alias.default", &B::View},
      {"aten.permute.default", &B::Permute},
      {"aten.expand.default", &B::Expand},
      {"aten.slice.Tensor", &B::Slice},
      {"aten.select.int", &B::Select},
      {"aten.cat.default", &B::Cat},
      {"aten.constant_pad_nd.default", &B::Pad},
      {"aten.clone.default", &B::PassThrough},
      {"aten.add.Tensor", &B::Add},
      {"aten.sub.Tensor", &B::Add},
      {"aten.neg.default", &B::Neg},
      {"aten.to.dtype", &B::Cast},
      {"aten.mul.Tensor", &B::MulOrDiv},
      {"aten.div.Tensor", &B::MulOrDiv},
      {"aten.sum.dim_IntList", &B::SumOrMean},
      {"aten.sum.default", &B::SumOrMean},
      {"aten.mean.dim", &B::SumOrMean},
      {"aten.mean.default", &B::SumOrMean},
      {"aten.linear.default", &B::Linear},
      {"aten.matmul.default", &B::MatmulAdjoint},
      {"aten.addmm.default", &B::Addmm},
      {"aten.embedding.default", &B::Embedding},
      {"aten._scaled_dot_product_flash_attention_for_cpu.default", &B::FlashAttention},
      {"autosp.block_attention", &B::BlockAttention},
      {"autosp.cross_entropy", &B::CrossEntropy},
      {"autosp.cross_entropy_sum", &B::CrossEntropy},
      {"autosp.dropout", &B::Dropout},
      {"autosp.expert_mm", &B::ExpertMm},
      {"all_to_all", &B::AllToAll},
      {"all_gather", &B::AllGather},
      {"all_reduce", &B::AllReduce},
      {"autosp.to_shards", &B::ToShards},
      {"autosp.fft_c2c", &B::Fourier},
      {"autosp.fft_c2r", &B::Fourier},
      {"autosp.fft_r2c", &B::Fourier},
      {"autosp.from_shards", &B::FromShards},
      {"autosp.token_conv", &B::TokenConv},
      {"autosp.token_shift", &B::TokenShift},
  };
  return table;
}

void BackwardLowering::FindNeeds(const std::vector<Instruction>& forward) {
  const Program& program = builder_.program();
  needs_grad_.assign(program.values.size(), false);
  for (const auto& [parameter, gradient] : gradients_) needs_grad_[parameter.index] = true;
  for (const Persistent& persistent : program.persistents) {
    forward_storages_.insert(program.value(persistent.value).storage);
  }
  for (const Instruction& instruction : forward) {
    NoteTransposed(instruction);
    NoteCopy(instruction);
    bool needs = false;
    const bool is_read =
        instruction.kind != InstructionKind::kAlias && instruction.kind != InstructionKind::kWait;
    for (ValueId operand : OperandsOf(instruction)) {
      needs = needs || needs_grad_[operand.index];
      if (is_read) ++forward_reads_[program.value(operand).storage];
    }
    const bool keeps_results = needs && KeepsResults(instruction);
    for (ValueId result : instruction.results) {
      if (keeps_results) ++forward_reads_[program.value(result).storage];
      forward_storages_.insert(program.value(result).storage);
      needs_grad_[result.index] =
          needs && IsFloating(program.value(result).dtype) && !stopped_.contains(result);
    }
  }
}

// What is copied, or laid out for ranks, has the gradient of what it shows.
void BackwardLowering::NoteCopy(const Instruction& instruction) {
  static const auto& kMoves = *new std::set<std::string, std::less<>>{
      "aten.clone.default", "aten.constant_pad_nd.default", "all_gather",
      "all_to_all",         "autosp.from_shards",           "autosp.to_shards"};
  if (instruction.kind != InstructionKind::kCopy && !kMoves.contains(instruction.op)) return;
  const ProgramValue& from = builder_.value(OperandsOf(instruction)[0]);
  const ProgramValue& to = builder_.value(instruction.results[0]);
  if (parameter_storages_.contains(from.storage) && from.dtype == to.dtype) {
    parameter_storages_.insert(to.storage);
  }
}

bool BackwardLowering::IsHalfParameter(ValueId value) const {
  return IsHalf(builder_.value(value).dtype) && !builder_.IsStretched(value) &&
         parameter_storages_.contains(builder_.value(value).storage);
}

// Whether the derivative of an op reads what the op gave, as that of tanh does.
bool BackwardLowering::KeepsResults(const Instruction& instruction) {
  if (instruction.kind != InstructionKind::kCall) return false;
  const OpRule* rule = FindOpRule(instruction.op);
  const bool is_known = rule != nullptr && (rule->derivative == Derivative::kTaped ||
                                            AdjointTable().contains(instruction.op));
  // Whatever its derivative reads (see Taped).
  if (!is_known) return true;
  const std::vector<bool> all_need(OperandsOf(instruction).size(), true);
  return std::ranges::any_of(SavedTensors(*rule, all_need), &SavedTensor::is_result);
}

absl::Status BackwardLowering::Append(std::vector<Instruction>& forward, ValueId loss) {
  FindNeeds(forward);
  // d loss / d loss = 1. Where the loss is a partial sum, its gradient is replicated.
  const ValueId seed = builder_.Call(
      "aten.ones.default", {IntList{}, builder_.value(loss).dtype, None{}, None{}, None{}},
      builder_.Typed(builder_.value(loss).dtype, {}));
  AddGrad(loss, seed);
  ranges_.resize(forward.size());
  for (size_t i = forward.size(); i-- > 0;) {
    ranges_[i].first = builder_.body().size();
    RETURN_IF_ERROR(AppendOne(forward[i]));
    ranges_[i].second = builder_.body().size();
  }
  return absl::OkStatus();
}

absl::Status BackwardLowering::AppendOne(Instruction& forward) {
  Adjoint adjoint{forward, {}};
  bool any = false;
  for (ValueId result : forward.results) {
    const auto found = grads_.find(result);
    adjoint.grads.push_back(found == grads_.end() ? ValueId{} : found->second);
    any = any || found != grads_.end();
    // The gradient stays counted until the adjoint is done: nothing may be added into it meanwhile.
    if (found != grads_.end()) grads_.erase(found);
  }
  if (!any) return absl::OkStatus();
  Source old_source = builder_.SetSource(forward.source);
  absl::Status status;
  if (forward.kind == InstructionKind::kCopy) {
    status = PassThrough(adjoint);
  } else {
    const auto found = AdjointTable().find(forward.op);
    const AdjointFn adjoint_fn =
        found == AdjointTable().end() ? &BackwardLowering::Taped : found->second;
    status = (this->*adjoint_fn)(adjoint);
  }
  builder_.SetSource(std::move(old_source));
  for (ValueId grad : adjoint.grads) {
    if (grad.valid()) --pending_[builder_.value(grad).storage];
  }
  return WithContext(status, forward.op, forward.source.Where());
}

// A gradient that may be added into: nothing else reads its storage later, and no two of its
// elements share a place.
bool BackwardLowering::IsExclusive(ValueId grad, int64_t pending) const {
  const ProgramValue& value = builder_.value(grad);
  const auto found = pending_.find(value.storage);
  const int64_t count = found == pending_.end() ? 0 : found->second;
  return count == pending && !forward_storages_.contains(value.storage) &&
         !builder_.IsStretched(grad);
}

void BackwardLowering::AddGrad(ValueId value, ValueId grad) {
  if (!Needs(value)) return;
  if (gradients_.contains(value)) return AddParameterGrad(value, grad);
  const auto existing = grads_.find(value);
  if (existing == grads_.end()) {
    grads_[value] = grad;
    ++pending_[builder_.value(grad).storage];
    return;
  }
  ValueId sum = existing->second;
  --pending_[builder_.value(sum).storage];
  const AxisList axes = Union(builder_.value(sum).partial.axes, builder_.value(grad).partial.axes);
  sum = ScaleTo(sum, axes);
  grad = ScaleTo(grad, axes);
  const DType dtype = PromoteTypes(builder_.value(sum).dtype, builder_.value(grad).dtype);
  const auto takes = [&](ValueId into) {
    return IsExclusive(into, 0) && builder_.value(into).dtype == dtype;
  };
  if (takes(sum)) {
    builder_.Accumulate(sum, grad);
  } else if (takes(grad)) {
    builder_.Accumulate(grad, sum);
    sum = grad;
  } else {
    ProgramValue type = builder_.Like(sum);
    type.dtype = dtype;
    type.strides =
        ElementwiseStrides(builder_.LocalSizes(sum), {builder_.Shape(sum), builder_.Shape(grad)});
    sum = builder_.Call("aten.add.Tensor", {sum, grad, SymInt(1)}, std::move(type));
  }
  existing->second = sum;
  ++pending_[builder_.value(sum).storage];
}

ValueId BackwardLowering::Scaled(ValueId grad, double factor) {
  ProgramValue type = builder_.Like(grad);
  type.strides = ElementwiseStrides(builder_.LocalSizes(grad), {builder_.Shape(grad)});
  return builder_.Call("aten.mul.Tensor", {grad, factor}, std::move(type));
}

// Makes a gradient partial on all of `axes`: each rank takes its share of what it holds in full.
ValueId BackwardLowering::ScaleTo(ValueId grad, const AxisList& axes) {
  const AxisList missing = Without(axes, builder_.value(grad).partial.axes);
  if (missing.empty()) return grad;
  grad = Scaled(grad, 1.0 / static_cast<double>(builder_.program().mesh.size(missing)));
  builder_.program().value(grad).partial.axes = axes;
  return grad;
}

void BackwardLowering::AddParameterGrad(ValueId parameter, ValueId grad) {
  const Mesh& mesh = builder_.program().mesh;
  grad = ScaleTo(grad, NonTrivial(mesh, {kStepAxes.begin(), kStepAxes.end()}));
  builder_.Accumulate(gradients_.at(parameter), grad);
}

AxisList BackwardLowering::PartialAxes(const Instruction& forward, ValueId operand,
                                       ValueId grad) const {
  AxisList op_axes;
  const auto add = [&](ValueId value) {
    if (builder_.value(value).is_tape) return;
    op_axes = Union(op_axes, ShardAxes(builder_.value(value)));
    op_axes = Union(op_axes, builder_.value(value).partial.axes);
  };
  for (ValueId value : OperandsOf(forward)) add(value);
  for (ValueId value : forward.results) add(value);
  const ProgramValue& value = builder_.value(operand);
  AxisList axes = Without(builder_.value(grad).partial.axes, op_axes);
  const AxisList held = Union(ShardAxes(value), value.partial.axes);
  return Union(axes, Without(op_axes, held));
}

// Of half types in fp32: what ranks have to add up is not rounded before. ATen has it so within one
// op, so that nothing changes where no rank has to.
ValueId BackwardLowering::SumOver(const Instruction& forward, ValueId grad, ValueId operand,
                                  const std::vector<int64_t>& dims, bool keep) {
  const DType dtype = builder_.value(grad).dtype;
  return builder_.Sum(grad, dims, keep, PartialOf(forward, operand, grad),
                      IsHalf(dtype) ? DType::kF32 : dtype);
}

ValueId BackwardLowering::SumTo(const Instruction& forward, ValueId grad, ValueId operand) {
  const std::vector<ProgramDim> to = builder_.value(operand).dims;
  const std::vector<ProgramDim> from = builder_.value(grad).dims;
  const size_t added = from.size() - to.size();
  std::vector<int64_t> summed;
  for (size_t i = 0; i < from.size(); ++i) {
    const bool stretched = i < added || (to[i - added].empty() && !from[i].empty());
    if (stretched) summed.push_back(static_cast<int64_t>(i));
  }
  if (!summed.empty()) {
    grad = builder_.View(SumOver(forward, grad, operand, summed, /*keep=*/true), to);
  }
  return CastTo(operand, grad);
}

// A gradient in the type of its operand. Parts of one in fp32 are summed over ranks before they are
// rounded to a half type, as one device rounds the sum. Those of a parameter stay in fp32, in which
// they are summed once in a step.
ValueId BackwardLowering::CastTo(ValueId operand, ValueId grad) {
  const DType from = builder_.value(grad).dtype;
  const DType to = builder_.value(operand).dtype;
  if (IsHalf(to) && !IsHalf(from)) {
    if (IsHalfParameter(operand)) return grad;
    // Over micro-steps it is summed at the end of the step.
    const AxisList ranks = Without(builder_.value(grad).partial.axes, {Axis::kAccum});
    if (!ranks.empty()) grad = builder_.AllReduce(grad, ranks);
  }
  return builder_.Cast(grad, to);
}

ValueId BackwardLowering::Flatten2D(ValueId value) {
  const std::vector<ProgramDim>& dims = builder_.value(value).dims;
  if (dims.size() == 2) return value;
  ProgramDim tokens;
  for (size_t i = 0; i + 1 < dims.size(); ++i) {
    tokens.insert(tokens.end(), dims[i].begin(), dims[i].end());
  }
  return builder_.View(value, {tokens, dims.back()});
}

ValueId BackwardLowering::Transposed(ValueId value) {
  std::vector<int64_t> order(builder_.value(value).dims.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  std::swap(order[order.size() - 1], order[order.size() - 2]);
  return builder_.Permute(value, order);
}

ValueId BackwardLowering::Matmul(ValueId a, ValueId b, std::vector<ProgramDim> dims,
                                 Partial partial) {
  return builder_.Call(
      "aten.matmul.default", {a, b},
      builder_.Typed(builder_.value(a).dtype, std::move(dims), std::move(partial)));
}

void BackwardLowering::AddMatrixGrad(const Adjoint& adjoint, ValueId matrix, ValueId a, ValueId b) {
  if (!Needs(matrix)) return;
  // Of a transposed parameter it is that of the parameter, transposed.
  const auto view = transposed_.find(matrix);
  if (view != transposed_.end() && IsHalfParameter(matrix) && gradients_.contains(view->second)) {
    return AddMatrixGrad(adjoint, view->second, b, a);
  }
  a = Flatten2D(a);
  b = Flatten2D(b);
  const Partial partial = PartialOf(adjoint.forward, matrix, adjoint.grad());
  const Mesh& mesh = builder_.program().mesh;
  const auto accumulator = gradients_.find(matrix);
  const AxisList all = NonTrivial(mesh, {kStepAxes.begin(), kStepAxes.end()});
  if (accumulator != gradients_.end() && partial.axes == all) {
    builder_.Update("autosp.matmul_accumulate_", {accumulator->second, a, b},
                    {{"beta", SymInt(1)}});
    return;
  }
  if (IsHalfParameter(matrix)) {
    ProgramValue type = builder_.Typed(DType::kF32, builder_.value(matrix).dims, partial);
    const ValueId sum = builder_.Zeros(std::move(type));
    builder_.Update("autosp.matmul_accumulate_", {sum, a, b}, {{"beta", SymInt(1)}});
    return AddGrad(matrix, sum);
  }
  AddGrad(matrix, Matmul(Transposed(a), b, builder_.value(matrix).dims, partial));
}

}  // namespace autosp
