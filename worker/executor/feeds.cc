// feed and output: what comes in from the data, and what the host reads.

#include <ATen/core/LegacyTypeDispatch.h>

#include <optional>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/layout.h"
#include "worker/executor/step.h"

namespace autosp {
namespace {

class FeedStep final : public Step {
 public:
  FeedStep(const Instruction& instruction, ValueLayout layout, Argument pad,
           std::optional<int> micro_step_variable, const StepContext& context)
      : instruction_(instruction),
        layout_(std::move(layout)),
        pad_(std::move(pad)),
        micro_step_variable_(micro_step_variable),
        program_(context.program),
        environment_(context.environment) {}

  absl::Status Run(RunState& state) override {
    const MemoryScope scope(layout_.account);
    const int64_t micro_step =
        micro_step_variable_ ? state.loop_variables[*micro_step_variable_] : 0;
    ASSIGN_OR_RETURN(at::Tensor tensor, environment_.feeder->Feed(
                                            {instruction_.op, program_, program_.value(layout_.id),
                                             environment_.place, micro_step, pad_}));
    tensor = tensor.to(layout_.device);
    return StoreResult(layout_, std::move(tensor), {}, state);
  }

 private:
  const Instruction& instruction_;
  const ValueLayout layout_;
  const Argument pad_;
  const std::optional<int> micro_step_variable_;
  const Program& program_;
  ExecutorEnvironment& environment_;
};

class OutputStep final : public Step {
 public:
  OutputStep(std::string name, ValueId value) : name_(std::move(name)), value_(value) {}

  absl::Status Run(RunState& state) override {
    ASSIGN_OR_RETURN(const at::Tensor tensor, LiveTensor(value_, state));
    // The host's own copy: it is not the rank's memory, and later steps may write to the value.
    const MemoryScope nobody(nullptr);
    state.outputs[name_] = tensor.is_cpu() ? tensor.clone() : tensor.cpu();
    return absl::OkStatus();
  }

 private:
  const std::string name_;
  const ValueId value_;
};

}  // namespace

StepOr PrepareFeed(const Instruction& instruction, const StepContext& context) {
  if (instruction.results.size() != 1) return InvalidArgument("a feed has one result");
  if (context.environment.feeder == nullptr) return FailedPrecondition("the rank has no feeder");
  const auto pad = instruction.attributes.find("pad");
  return std::make_unique<FeedStep>(instruction, ValueLayout::Of(instruction.results[0], context),
                                    pad == instruction.attributes.end() ? Argument() : pad->second,
                                    context.loops.Find("accum"), context);
}

StepOr PrepareOutput(const Instruction& instruction, const StepContext& /*context*/) {
  const std::vector<ValueId> operands = OperandsOf(instruction);
  if (operands.size() != 1) return InvalidArgument("an output has one operand");
  return std::make_unique<OutputStep>(instruction.op, operands[0]);
}

}  // namespace autosp
