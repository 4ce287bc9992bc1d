// record and vjp.

#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/argument_stack.h"
#include "worker/executor/aten_op.h"
#include "worker/executor/layout.h"
#include "worker/executor/step.h"
#include "worker/executor/tape.h"

namespace autosp {
namespace {

class RecordStep final : public Step {
 public:
  RecordStep(c10::OperatorHandle op, ArgumentStack arguments, ResultStore results)
      : op_(std::move(op)), arguments_(std::move(arguments)), results_(std::move(results)) {}

  absl::Status Run(RunState& state) override {
    const MemoryScope scope(account);
    state.stack.clear();
    RETURN_IF_ERROR(arguments_.Push(state.tensors, state.stack));
    ASSIGN_OR_RETURN(Tape recorded, Record({op_, diff, saves, is_opaque}, state.stack));
    state.tapes[tape.index].emplace(std::move(recorded));
    return results_.Take(state);
  }

  ValueId tape;
  std::vector<int> diff;
  std::vector<TapeTensor> saves;
  bool is_opaque = false;
  const MemoryAccount* account = nullptr;

 private:
  const c10::OperatorHandle op_;
  const ArgumentStack arguments_;
  const ResultStore results_;
};

absl::StatusOr<TapeTensor> FindTapeTensor(const Instruction& instruction, ValueId id,
                                          const Program& program) {
  const std::vector<ValueId> operands = OperandsOf(instruction);
  for (const bool is_result : {false, true}) {
    const std::vector<ValueId>& values = is_result ? instruction.results : operands;
    const auto found = std::ranges::find(values, id);
    if (found != values.end()) {
      return TapeTensor{is_result, static_cast<int>(found - values.begin())};
    }
  }
  return InvalidArgument("saves names %", program.value(id).name,
                         ", which is neither an operand nor a result");
}

class VjpStep final : public Step {
 public:
  VjpStep(ValueId tape, std::vector<ValueId> grads, ValueList saved, ResultStore results)
      : tape_(tape),
        grads_(std::move(grads)),
        saved_(std::move(saved)),
        results_(std::move(results)) {}

  absl::Status Run(RunState& state) override {
    const MemoryScope scope(account);
    std::optional<Tape>& tape = state.tapes[tape_.index];
    if (!tape.has_value()) return Internal("the tape is not live");
    std::vector<at::Tensor> grads;
    std::vector<at::Tensor> saved;
    RETURN_IF_ERROR(Collect(grads_, state, grads));
    RETURN_IF_ERROR(Collect(saved_, state, saved));
    std::vector<at::Tensor> gradients;
    {
      const at::AutoDispatchBelowADInplaceOrView no_autograd;
      ASSIGN_OR_RETURN(gradients, Vjp(*tape, grads, saved));
    }
    // StoreResult looks for shared storage by value; nothing else may keep it alive here.
    grads.clear();
    saved.clear();
    for (size_t i = 0; i < gradients.size(); ++i) {
      if (gradients[i].defined() || i >= results_.layouts().size()) continue;
      gradients[i] = results_.layouts()[i].Allocate().zero_();
    }
    state.stack.assign(gradients.begin(), gradients.end());
    gradients.clear();
    return results_.Take(state);
  }

  const MemoryAccount* account = nullptr;

 private:
  static absl::Status Collect(const std::vector<ValueId>& ids, const RunState& state,
                              std::vector<at::Tensor>& tensors) {
    for (const ValueId id : ids) {
      tensors.emplace_back();
      if (!id.valid()) continue;
      ASSIGN_OR_RETURN(tensors.back(), LiveTensor(id, state));
    }
    return absl::OkStatus();
  }

  const ValueId tape_;
  const std::vector<ValueId> grads_;  // invalid: none
  const ValueList saved_;
  const ResultStore results_;
};

bool IsOpaque(const Instruction& instruction) {
  const auto found = instruction.attributes.find("opaque");
  return found != instruction.attributes.end() && std::get_if<bool>(&found->second) != nullptr &&
         std::get<bool>(found->second);
}

}  // namespace

StepOr PrepareRecord(const Instruction& instruction, const StepContext& context) {
  std::vector<ValueId> results = instruction.results;
  if (results.empty() || !context.program.value(results.back()).is_tape) {
    return InvalidArgument("the last result of a record must be a tape");
  }
  const ValueId tape = results.back();
  results.pop_back();
  ASSIGN_OR_RETURN(c10::OperatorHandle op, FindAtenOp(instruction.op));
  ASSIGN_OR_RETURN(ArgumentStack arguments,
                   ArgumentStack::Make(op.schema(), instruction.args, context.environment.compute));
  auto step = std::make_unique<RecordStep>(std::move(op), std::move(arguments),
                                           ResultStore(instruction, results, context));
  step->tape = tape;
  step->is_opaque = IsOpaque(instruction);
  step->account = context.environment.device;
  const auto num_operands = static_cast<int64_t>(OperandsOf(instruction).size());
  for (const int64_t index : IntsAttribute(instruction, "diff")) {
    if (index < 0 || index >= num_operands) {
      return InvalidArgument("diff names operand ", index, " of ", num_operands);
    }
    step->diff.push_back(static_cast<int>(index));
  }
  for (const ValueId id : ValuesAttribute(instruction, "saves")) {
    ASSIGN_OR_RETURN(const TapeTensor save, FindTapeTensor(instruction, id, context.program));
    step->saves.push_back(save);
  }
  return step;
}

StepOr PrepareVjp(const Instruction& instruction, const StepContext& context) {
  const auto* tape =
      instruction.args.empty() ? nullptr : std::get_if<ValueId>(&instruction.args[0]);
  if (tape == nullptr || !context.program.value(*tape).is_tape) {
    return InvalidArgument("the first argument of a vjp must be a tape");
  }
  std::vector<ValueId> grads;
  for (size_t i = 1; i < instruction.args.size(); ++i) {
    const auto* id = std::get_if<ValueId>(&instruction.args[i]);
    if (id == nullptr && !IsNone(instruction.args[i])) {
      return InvalidArgument("argument ", i, " of a vjp must be a value or none");
    }
    grads.push_back(id ? *id : ValueId());
  }
  auto step =
      std::make_unique<VjpStep>(*tape, std::move(grads), ValuesAttribute(instruction, "saved"),
                                ResultStore(instruction, instruction.results, context));
  step->account = context.environment.device;
  return step;
}

}  // namespace autosp
