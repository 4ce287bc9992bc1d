#include "worker/executor/step.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/lookup_errors.h"
#include "worker/executor/memory_report.h"
#include "worker/executor/profile.h"
#include "worker/executor/torch_types.h"

namespace autosp {

RunState::RunState(const Program& program)
    : tensors(program.values.size()), tapes(program.values.size()) {}

int LoopVariables::Add(const std::string& name) {
  if (const auto index = Find(name)) return *index;
  names_.push_back(name);
  return size() - 1;
}

std::optional<int> LoopVariables::Find(std::string_view name) const {
  const auto found = std::ranges::find(names_, name);
  if (found == names_.end()) return std::nullopt;
  return static_cast<int>(found - names_.begin());
}

const MemoryAccount* StepContext::AccountOf(ValueId id) const {
  return environment.account(program.value(id).account);
}

absl::StatusOr<OffsetExpr> OffsetExpr::Make(const LinearExpr& expr, const StepContext& context) {
  OffsetExpr result;
  result.base_ = expr.base;
  for (const auto& [variable, coefficient] : expr.terms) {
    if (variable.starts_with("rank.")) {
      const std::optional<Axis> axis = AxisFromName(std::string_view(variable).substr(5));
      if (!axis.has_value()) return InvalidArgument("offset names '", variable, "', no mesh axis");
      result.base_ += coefficient * context.environment.place.index(*axis);
    } else if (const auto loop = context.loops.Find(variable)) {
      result.terms_.emplace_back(*loop, coefficient);
    } else {
      return InvalidArgument("offset names '", variable, "', the variable of no enclosing loop");
    }
  }
  return result;
}

int64_t OffsetExpr::Evaluate(const RunState& state) const {
  int64_t value = base_;
  for (const auto& [loop, coefficient] : terms_) value += coefficient * state.loop_variables[loop];
  return value;
}

namespace {

StepOr PrepareStep(const Instruction& instruction, const StepContext& context) {
  switch (instruction.kind) {
    case InstructionKind::kFeed:
      return PrepareFeed(instruction, context);
    case InstructionKind::kCall:
      return PrepareCall(instruction, context);
    case InstructionKind::kRecord:
      return PrepareRecord(instruction, context);
    case InstructionKind::kVjp:
      return PrepareVjp(instruction, context);
    case InstructionKind::kAlias:
      return PrepareAlias(instruction, context);
    case InstructionKind::kCopy:
      return PrepareCopy(instruction, context);
    case InstructionKind::kAccumulate:
      return PrepareAccumulate(instruction, context);
    case InstructionKind::kUpdate:
      return PrepareUpdate(instruction, context);
    case InstructionKind::kStart:
      return PrepareStart(instruction, context);
    case InstructionKind::kWait:
      return PrepareWait(instruction, context);
    case InstructionKind::kFree:
      return PrepareFree(instruction, context);
    case InstructionKind::kFor:
      return PrepareFor(instruction, context);
    case InstructionKind::kOutput:
      return PrepareOutput(instruction, context);
  }
  return Internal("unknown instruction kind");
}

// Errors of a loop's body already name their instruction.
absl::Status InInstruction(const Program& program, const Instruction& instruction,
                           const absl::Status& status) {
  if (status.ok() || instruction.kind == InstructionKind::kFor) return status;
  return WithContext(status, DescribeInstruction(program, instruction));
}

absl::Status RunOne(const Program& program, ExecutorEnvironment& environment,
                    const PreparedStep& prepared, RunState& state) {
  // A caught exception leaves its status in one place, so that the good path stays short.
  absl::Status status = CatchTorch([&] {
    absl::Status result = prepared.step->Run(state);
    if (state.profile != nullptr) state.profile->WaitForGpu();
    return result;
  });
  if (status.ok()) [[likely]]
    return status;
  if (absl::Status out_of_memory = DescribeOutOfMemory(program, environment, state);
      !out_of_memory.ok()) {
    status = std::move(out_of_memory);
  } else if (absl::Status look_up = DescribeLookUp(program, *prepared.instruction, state);
             !look_up.ok()) {
    status = std::move(look_up);
  }
  return InInstruction(program, *prepared.instruction, status);
}

}  // namespace

absl::StatusOr<std::vector<PreparedStep>> PrepareBody(const std::vector<Instruction>& body,
                                                      const StepContext& context) {
  std::vector<PreparedStep> steps;
  steps.reserve(body.size());
  for (const Instruction& instruction : body) {
    std::unique_ptr<Step> step;
    // findSchemaOrThrow and conversions of literals throw.
    const absl::Status status = CatchTorch([&]() -> absl::Status {
      ASSIGN_OR_RETURN(step, PrepareStep(instruction, context));
      return absl::OkStatus();
    });
    RETURN_IF_ERROR(InInstruction(context.program, instruction, status));
    steps.push_back({&instruction, std::move(step), context.num_profile_rows++});
  }
  return steps;
}

absl::Status RunBody(const Program& program, ExecutorEnvironment& environment,
                     const std::vector<PreparedStep>& body, RunState& state) {
  for (const PreparedStep& prepared : body) {
    if (state.profile == nullptr) [[likely]] {
      RETURN_IF_ERROR(RunOne(program, environment, prepared, state));
      continue;
    }
    const ProfileScope scope(*state.profile, prepared, state, environment.device);
    RETURN_IF_ERROR(RunOne(program, environment, prepared, state));
  }
  return absl::OkStatus();
}

}  // namespace autosp
