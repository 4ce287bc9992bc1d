// What a step leaves in buffers: running statistics, moving averages, counters.
#pragma once

#include <map>
#include <vector>

#include "absl/status/status.h"
#include "compiler/lowering/forward_lowering.h"
#include "compiler/lowering/program_builder.h"

namespace autosp {

// A buffer is written once in a step, when everything else has read it: what is computed again in
// the backward reads what the forward has read.
//
//   %new = ...                                          forward, whole on every rank
//   ...                                                 backward
//   update aten.copy_.default(%buffer, %new, false)
//
// With gradient accumulation the step is still that of the whole batch, and writes once:
// micro-steps add up the sums that new values follow from, and what follows is computed after the
// last of them. What needs more of a micro-step than its part of a sum (a maximum, a deviation from
// the mean) is refused there.
class BufferWrites {
 public:
  BufferWrites(const ForwardLowering::Inputs& inputs, ProgramBuilder& builder)
      : inputs_(inputs), builder_(builder) {}

  // Appends to the forward of a micro-step what new values, or their sums, need besides it.
  // Requires: the loss is lowered.
  absl::Status LowerValues(ForwardLowering& lowering);
  // Appends the zeros that micro-steps add to.
  void BeginStep();
  // Appends what comes after the backward of a micro-step.
  void EndMicroStep();
  // Appends what comes after all micro-steps.
  absl::Status EndStep();

 private:
  struct Sum {
    ValueId part;  // of a micro-step
    ValueId total = {};
  };

  bool accumulates() const { return builder_.program().mesh.accum > 1; }
  absl::StatusOr<ValueId> Whole(ForwardLowering& lowering, ValueId value);
  bool IsShared(ValueId id) const;
  void Assign();
  ValueId TotalOf(ValueId value, const Sum& sum);
  void DropUnread(std::vector<Instruction>& body) const;
  absl::Status CheckLate(const std::vector<Instruction>& body) const;

  const ForwardLowering::Inputs& inputs_;
  ProgramBuilder& builder_;
  std::vector<ValueId> buffers_;  // of the program
  std::vector<ValueId> values_;   // of the graph: what is written to each
  std::vector<ValueId> results_;  // the same of the program, once they are known
  std::map<ValueId, Sum> sums_;   // by value of the graph
};

}  // namespace autosp
