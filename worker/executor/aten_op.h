// ATen ops by the names that programs use, and how their results become values.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/executor/layout.h"
#include "worker/executor/step.h"

namespace autosp {

// "aten.mul.Tensor" or "aten.linear.default".
absl::StatusOr<c10::OperatorHandle> FindAtenOp(const std::string& name);

// Moves what an op left on the stack into values, each in its declared layout.
class ResultStore {
 public:
  // `results` are those of the instruction that the op makes, in order.
  ResultStore(const Instruction& instruction, const std::vector<ValueId>& results,
              const StepContext& context);

  // Empties the stack. An update ignores what the op returns: it aliases its operands.
  absl::Status Take(RunState& state) const;

  const std::vector<ValueLayout>& layouts() const { return layouts_; }

 private:
  absl::Status Store(at::Tensor tensor, size_t index, RunState& state) const;

  std::vector<ValueLayout> layouts_;
  // What a result may not share memory with: the operands, then the results before it.
  std::vector<ValueId> others_;
  size_t num_operands_ = 0;
  bool is_update_ = false;
};

}  // namespace autosp
