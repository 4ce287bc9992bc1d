#include "worker/executor/collective_plan.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <string>

#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

absl::StatusOr<ReduceOp> ReduceOpOf(const Instruction& instruction) {
  ASSIGN_OR_RETURN(const std::string name, StringAttribute(instruction, "reduction"));
  if (name == "sum") return ReduceOp::kSum;
  if (name == "max") return ReduceOp::kMax;
  return InvalidArgument("reduction '", name, "' is not sum or max");
}

}  // namespace

CollectiveUse& CollectivePlan::UseIn(RunState& state) const {
  for (CollectiveUse& use : state.collectives) {
    if (use.kind == kind && use.phase == phase && use.axes == axes) return use;
  }
  state.collectives.push_back({.kind = kind, .phase = phase, .axes = axes});
  return state.collectives.back();
}

at::Tensor CollectivePlan::AllocateBuffer(int64_t bytes) const {
  const MemoryScope scope(buffers);
  return at::empty({bytes}, at::TensorOptions(device).dtype(at::kByte));
}

UseScope::UseScope(const CollectivePlan& plan, RunState& state)
    : plan_(plan), state_(state), start_(std::chrono::steady_clock::now()) {
  if (plan.group != nullptr) before_ = plan.group->counters().of(plan.kind);
}

UseScope::~UseScope() {
  CollectiveUse& use = plan_.UseIn(state_);
  use.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  if (plan_.group == nullptr) return;
  const CollectiveCounter& after = plan_.group->counters().of(plan_.kind);
  use.calls += after.calls - before_.calls;
  use.bytes_received += after.bytes_received - before_.bytes_received;
}

absl::StatusOr<CollectivePlan> PlanGroup(const Instruction& instruction, CollectiveKind kind,
                                         const StepContext& context) {
  CollectivePlan plan;
  plan.kind = kind;
  plan.phase = instruction.phase;
  plan.buffers = context.environment.communication;
  plan.device = context.environment.compute;
  ASSIGN_OR_RETURN(plan.axes, AxesAttribute(instruction));
  if (std::ranges::count(plan.axes, Axis::kAccum) > 0) {
    return InvalidArgument("axes (", AxisListName(plan.axes), "): accum is no device axis");
  }
  if (kind == CollectiveKind::kReduceScatter || kind == CollectiveKind::kAllReduce) {
    ASSIGN_OR_RETURN(plan.reduce, ReduceOpOf(instruction));
  }
  if (context.program.mesh.size(plan.axes) == 1) return plan;
  if (context.environment.collectives == nullptr) {
    return FailedPrecondition("the rank has no collectives, and axes ", AxisListName(plan.axes),
                              " span ", context.program.mesh.size(plan.axes), " ranks");
  }
  ASSIGN_OR_RETURN(plan.group, context.environment.collectives->Group(plan.axes));
  return plan;
}

}  // namespace autosp
