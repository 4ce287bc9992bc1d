// A prepared instruction: everything that does not change between runs has been looked up.
//
// Every kind of instruction has a class derived from Step in the file of its family (call.cc,
// tapes.cc, views.cc, collectives.cc, feeds.cc, loops.cc), and a function that prepares it.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/program/program.h"
#include "worker/executor/collective_use.h"
#include "worker/executor/device_memory.h"
#include "worker/executor/environment.h"
#include "worker/executor/tape.h"

namespace autosp {

class PendingCollective;
class Profile;

// What changes while a section runs. One thread.
struct RunState {
  explicit RunState(const Program& program);

  const at::Tensor& tensor(ValueId id) const { return tensors[id.index]; }
  at::Tensor& tensor(ValueId id) { return tensors[id.index]; }

  std::vector<at::Tensor> tensors;                                // by value
  std::vector<std::optional<Tape>> tapes;                         // by value
  std::vector<int64_t> loop_variables;                            // by LoopVariables
  std::map<ValueId, std::shared_ptr<PendingCollective>> pending;  // by result
  std::map<std::string, at::Tensor, std::less<>> outputs;
  std::vector<CollectiveUse> collectives;
  torch::jit::Stack stack;     // scratch of calls; empty between steps
  int64_t num_conformed = 0;   // results copied into the declared layout
  int64_t num_unshared = 0;    // results copied because they shared memory
  Profile* profile = nullptr;  // null: not measured
};

class Step {
 public:
  virtual ~Step() = default;
  virtual absl::Status Run(RunState& state) = 0;
};

struct PreparedStep {
  const Instruction* instruction;  // in the executor's program
  std::unique_ptr<Step> step;
  int profile_row = 0;
};

// Loop variables by name; each has a place in RunState::loop_variables.
class LoopVariables {
 public:
  int Add(const std::string& name);  // a name that is known keeps its place
  std::optional<int> Find(std::string_view name) const;
  int size() const { return static_cast<int>(names_.size()); }

 private:
  std::vector<std::string> names_;
};

// What the preparing functions need.
struct StepContext {
  const Program& program;
  ExecutorEnvironment& environment;
  LoopVariables& loops;
  int& num_profile_rows;

  const MemoryAccount* AccountOf(ValueId id) const;
};

// base + sum of coefficient * loop variable; the place of the rank is folded into the base.
class OffsetExpr {
 public:
  static absl::StatusOr<OffsetExpr> Make(const LinearExpr& expr, const StepContext& context);
  int64_t Evaluate(const RunState& state) const;

 private:
  int64_t base_ = 0;
  std::vector<std::pair<int, int64_t>> terms_;
};

using StepOr = absl::StatusOr<std::unique_ptr<Step>>;
StepOr PrepareCall(const Instruction& instruction, const StepContext& context);
StepOr PrepareUpdate(const Instruction& instruction, const StepContext& context);
StepOr PrepareRecord(const Instruction& instruction, const StepContext& context);
StepOr PrepareVjp(const Instruction& instruction, const StepContext& context);
StepOr PrepareAlias(const Instruction& instruction, const StepContext& context);
StepOr PrepareCopy(const Instruction& instruction, const StepContext& context);
StepOr PrepareAccumulate(const Instruction& instruction, const StepContext& context);
StepOr PrepareFree(const Instruction& instruction, const StepContext& context);
StepOr PrepareStart(const Instruction& instruction, const StepContext& context);
StepOr PrepareWait(const Instruction& instruction, const StepContext& context);
StepOr PrepareAllReduceUpdate(const Instruction& instruction, const StepContext& context);
StepOr PrepareAllGatherUpdate(const Instruction& instruction, const StepContext& context);
StepOr PrepareFeed(const Instruction& instruction, const StepContext& context);
StepOr PrepareOutput(const Instruction& instruction, const StepContext& context);
StepOr PrepareFor(const Instruction& instruction, const StepContext& context);

// Errors name the instruction and its source.
absl::StatusOr<std::vector<PreparedStep>> PrepareBody(const std::vector<Instruction>& body,
                                                      const StepContext& context);
absl::Status RunBody(const Program& program, ExecutorEnvironment& environment,
                     const std::vector<PreparedStep>& body, RunState& state);

}  // namespace autosp
