// alias, copy, accumulate and free: what only moves or names memory.

#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/TensorImpl.h>

#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/layout.h"
#include "worker/executor/step.h"

namespace autosp {
namespace {

class AliasStep final : public Step {
 public:
  AliasStep(ValueId operand, ValueLayout layout, OffsetExpr offset)
      : operand_(operand), layout_(std::move(layout)), offset_(std::move(offset)) {}

  absl::Status Run(RunState& state) override {
    const at::Tensor& operand = state.tensor(operand_);
    if (!operand.defined()) return Internal("the operand is not live");
    const int64_t offset = offset_.Evaluate(state);
    const auto end = static_cast<size_t>(offset + layout_.span) * c10::elementSize(layout_.dtype);
    if (offset < 0 || (layout_.span > 0 && end > operand.storage().nbytes())) {
      return Internal("the alias ends at byte ", end, " of a storage of ",
                      operand.storage().nbytes(), " bytes");
    }
    // What as_strided does, without its trip through the dispatcher.
    at::Tensor alias = at::detail::make_tensor<c10::TensorImpl>(
        c10::TensorImpl::VIEW, c10::Storage(operand.storage()), operand.key_set(),
        c10::scalarTypeToTypeMeta(layout_.dtype));
    alias.unsafeGetTensorImpl()->set_sizes_and_strides(layout_.sizes, layout_.strides, offset);
    state.tensor(layout_.id) = std::move(alias);
    return absl::OkStatus();
  }

 private:
  const ValueId operand_;
  const ValueLayout layout_;
  const OffsetExpr offset_;
};

class CopyStep final : public Step {
 public:
  CopyStep(ValueId operand, ValueLayout layout) : operand_(operand), layout_(std::move(layout)) {}

  absl::Status Run(RunState& state) override {
    ASSIGN_OR_RETURN(const at::Tensor operand, LiveTensor(operand_, state));
    if (operand.sizes() != at::IntArrayRef(layout_.sizes)) {
      return Internal("operand and result differ in size");
    }
    const at::AutoDispatchBelowADInplaceOrView no_autograd;
    state.tensor(layout_.id) = layout_.Allocate().copy_(operand);
    return absl::OkStatus();
  }

 private:
  const ValueId operand_;
  const ValueLayout layout_;
};

class AccumulateStep final : public Step {
 public:
  AccumulateStep(ValueId target, ValueId source, const MemoryAccount* account)
      : target_(target), source_(source), account_(account) {}

  absl::Status Run(RunState& state) override {
    const MemoryScope scope(account_);
    ASSIGN_OR_RETURN(at::Tensor target, LiveTensor(target_, state));
    ASSIGN_OR_RETURN(const at::Tensor source, LiveTensor(source_, state));
    if (target.sizes() != source.sizes()) return Internal("the operands differ in size");
    const at::AutoDispatchBelowADInplaceOrView no_autograd;
    target.add_(source);
    return absl::OkStatus();
  }

 private:
  const ValueId target_;
  const ValueId source_;
  const MemoryAccount* account_;
};

class FreeStep final : public Step {
 public:
  FreeStep(const Program& program, std::vector<ValueId> values)
      : program_(program), values_(std::move(values)) {}

  absl::Status Run(RunState& state) override {
    for (const ValueId id : values_) {
      if (!state.tensor(id).defined() && !state.tapes[id.index].has_value()) {
        return Internal("%", program_.value(id).name, " is not live");
      }
      state.tensor(id).reset();
      state.tapes[id.index].reset();
    }
    return absl::OkStatus();
  }

 private:
  const Program& program_;
  const std::vector<ValueId> values_;
};

// Index of the one tensor operand that `instruction` must have.
absl::StatusOr<ValueId> OnlyOperand(const Instruction& instruction) {
  const std::vector<ValueId> operands = OperandsOf(instruction);
  if (operands.size() != 1 || instruction.results.size() != 1) {
    return InvalidArgument("must have one operand and one result");
  }
  return operands[0];
}

}  // namespace

StepOr PrepareAlias(const Instruction& instruction, const StepContext& context) {
  ASSIGN_OR_RETURN(const ValueId operand, OnlyOperand(instruction));
  const ValueId result = instruction.results[0];
  ASSIGN_OR_RETURN(OffsetExpr offset,
                   OffsetExpr::Make(context.program.value(result).offset, context));
  return std::make_unique<AliasStep>(operand, ValueLayout::Of(result, context), std::move(offset));
}

StepOr PrepareCopy(const Instruction& instruction, const StepContext& context) {
  ASSIGN_OR_RETURN(const ValueId operand, OnlyOperand(instruction));
  const ValueId result = instruction.results[0];
  if (context.program.value(result).account == Account::kDisk) {
    return Unimplemented("values on disk are not supported yet");
  }
  return std::make_unique<CopyStep>(operand, ValueLayout::Of(result, context));
}

StepOr PrepareAccumulate(const Instruction& instruction, const StepContext& context) {
  const std::vector<ValueId> operands = OperandsOf(instruction);
  if (operands.size() != 2 || !instruction.results.empty()) {
    return InvalidArgument("an accumulate has two operands and no result");
  }
  return std::make_unique<AccumulateStep>(operands[0], operands[1], context.environment.device);
}

StepOr PrepareFree(const Instruction& instruction, const StepContext& context) {
  return std::make_unique<FreeStep>(context.program, OperandsOf(instruction));
}

}  // namespace autosp
