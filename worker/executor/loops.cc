// for: runs its body `count` times.

#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/step.h"

namespace autosp {
namespace {

class ForStep final : public Step {
 public:
  ForStep(const StepContext& context, int variable, int64_t count, std::vector<PreparedStep> body)
      : program_(context.program),
        environment_(context.environment),
        variable_(variable),
        count_(count),
        body_(std::move(body)) {}

  absl::Status Run(RunState& state) override {
    for (int64_t i = 0; i < count_; ++i) {
      state.loop_variables[variable_] = i;
      RETURN_IF_ERROR(RunBody(program_, environment_, body_, state));
    }
    state.loop_variables[variable_] = 0;
    return absl::OkStatus();
  }

 private:
  const Program& program_;
  ExecutorEnvironment& environment_;
  const int variable_;
  const int64_t count_;
  const std::vector<PreparedStep> body_;
};

}  // namespace

StepOr PrepareFor(const Instruction& instruction, const StepContext& context) {
  ASSIGN_OR_RETURN(const int64_t count, IntAttribute(instruction, "count"));
  if (count < 0)
    return InvalidArgument("for ", instruction.op, ": count (", count, ") is negative");
  const int variable = context.loops.Add(instruction.op);
  ASSIGN_OR_RETURN(std::vector<PreparedStep> body, PrepareBody(instruction.body, context));
  return std::make_unique<ForStep>(context, variable, count, std::move(body));
}

}  // namespace autosp
