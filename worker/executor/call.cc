// call and update: ATen ops through the dispatcher, and our own.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/argument_stack.h"
#include "worker/executor/aten_op.h"
#include "worker/executor/layout.h"
#include "worker/executor/step.h"
#include "worker/ops/own_op.h"

namespace autosp {
namespace {

class AtenCall final : public Step {
 public:
  AtenCall(c10::OperatorHandle op, ArgumentStack arguments, ResultStore results,
           const MemoryAccount* account)
      : op_(std::move(op)),
        arguments_(std::move(arguments)),
        results_(std::move(results)),
        account_(account) {}

  absl::Status Run(RunState& state) override {
    state.stack.clear();
    const MemoryScope scope(account_);
    RETURN_IF_ERROR(arguments_.Push(state.tensors, state.stack));
    {
      const at::AutoDispatchBelowADInplaceOrView no_autograd;
      op_.callBoxed(state.stack);
    }
    return results_.Take(state);
  }

 private:
  const c10::OperatorHandle op_;
  const ArgumentStack arguments_;
  const ResultStore results_;
  const MemoryAccount* account_;
};

// An integer among the arguments: a literal, or the variable of an enclosing `for`.
struct IntegerArgument {
  int64_t literal = 0;
  std::optional<int> variable;
};

absl::StatusOr<std::vector<IntegerArgument>> IntegersOf(const Instruction& instruction,
                                                        const LoopVariables& loops) {
  std::vector<IntegerArgument> integers(instruction.args.size());
  for (size_t i = 0; i < integers.size(); ++i) {
    if (const auto* literal = std::get_if<SymInt>(&instruction.args[i])) {
      integers[i].literal = literal->value;
    } else if (const auto* name = std::get_if<std::string>(&instruction.args[i])) {
      integers[i].variable = loops.Find(*name);
      if (!integers[i].variable) {
        return InvalidArgument("argument ", i, " ('", *name,
                               "') is not the variable of an enclosing for");
      }
    }
  }
  return integers;
}

class OwnCallStep final : public Step {
 public:
  OwnCallStep(const Instruction& instruction, OwnOp op, ResultStore results,
              std::vector<IntegerArgument> integers, const LoopVariables& loops,
              const MemoryAccount* account)
      : instruction_(instruction),
        op_(std::move(op)),
        results_(std::move(results)),
        integer_arguments_(std::move(integers)),
        micro_step_variable_(loops.Find("accum")),
        tile_variable_(loops.Find("tile")),
        account_(account),
        args_(instruction.args.size()),
        integers_(instruction.args.size()) {}

  absl::Status Run(RunState& state) override {
    const MemoryScope scope(account_);
    const at::AutoDispatchBelowADInplaceOrView no_autograd;
    for (size_t i = 0; i < args_.size(); ++i) {
      args_[i].clear();
      RETURN_IF_ERROR(FillArgument(instruction_.args[i], state, args_[i]));
      const IntegerArgument& integer = integer_arguments_[i];
      integers_[i] = integer.variable ? state.loop_variables[*integer.variable] : integer.literal;
    }
    std::vector<at::Tensor> results;
    const absl::Status status = op_({args_, integers_, ValueOf(micro_step_variable_, state),
                                     ValueOf(tile_variable_, state), results});
    for (OwnArgument& arg : args_) arg.clear();
    RETURN_IF_ERROR(status);
    state.stack.assign(results.begin(), results.end());
    return results_.Take(state);
  }

 private:
  static int64_t ValueOf(std::optional<int> variable, const RunState& state) {
    return variable ? state.loop_variables[*variable] : 0;
  }

  static absl::Status FillArgument(const Argument& argument, const RunState& state,
                                   OwnArgument& tensors) {
    if (const auto* id = std::get_if<ValueId>(&argument)) {
      ASSIGN_OR_RETURN(at::Tensor tensor, LiveTensor(*id, state));
      tensors.push_back(std::move(tensor));
    } else if (const auto* list = std::get_if<ValueList>(&argument)) {
      for (const ValueId id : *list) {
        if (id.valid()) {
          ASSIGN_OR_RETURN(at::Tensor tensor, LiveTensor(id, state));
          tensors.push_back(std::move(tensor));
        } else {
          tensors.emplace_back();
        }
      }
    }
    return absl::OkStatus();
  }

  const Instruction& instruction_;
  const OwnOp op_;
  const ResultStore results_;
  const std::vector<IntegerArgument> integer_arguments_;
  const std::optional<int> micro_step_variable_;
  const std::optional<int> tile_variable_;
  const MemoryAccount* account_;
  std::vector<OwnArgument> args_;
  std::vector<int64_t> integers_;
};

StepOr PrepareOwn(const Instruction& instruction, OwnOpFactory factory,
                  const StepContext& context) {
  ASSIGN_OR_RETURN(OwnOp op, factory({context.program, instruction, context.environment.place,
                                      context.environment.compute}));
  ASSIGN_OR_RETURN(std::vector<IntegerArgument> integers, IntegersOf(instruction, context.loops));
  return std::make_unique<OwnCallStep>(
      instruction, std::move(op), ResultStore(instruction, instruction.results, context),
      std::move(integers), context.loops, context.environment.device);
}

}  // namespace

StepOr PrepareCall(const Instruction& instruction, const StepContext& context) {
  if (instruction.op.starts_with("autosp.")) {
    const OwnOpFactory factory = FindOwnOp(instruction.op);
    if (factory == nullptr) return Unimplemented("no op of that name is built in");
    return PrepareOwn(instruction, factory, context);
  }
  ASSIGN_OR_RETURN(c10::OperatorHandle op, FindAtenOp(instruction.op));
  ASSIGN_OR_RETURN(ArgumentStack arguments,
                   ArgumentStack::Make(op.schema(), instruction.args, context.environment.compute));
  return std::make_unique<AtenCall>(std::move(op), std::move(arguments),
                                    ResultStore(instruction, instruction.results, context),
                                    context.environment.device);
}

StepOr PrepareUpdate(const Instruction& instruction, const StepContext& context) {
  if (!instruction.results.empty()) return InvalidArgument("an update has no results");
  if (instruction.op == "autosp.all_reduce_") return PrepareAllReduceUpdate(instruction, context);
  if (instruction.op == "autosp.all_gather_") return PrepareAllGatherUpdate(instruction, context);
  return PrepareCall(instruction, context);
}

}  // namespace autosp
