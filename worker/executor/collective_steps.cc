// start and wait of collectives.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/collective_plan.h"
#include "worker/executor/layout.h"
#include "worker/executor/packing.h"
#include "worker/executor/step.h"

namespace autosp {

// A collective between its start and its wait. Holds the buffers that are the call's meanwhile.
class PendingCollective {
 public:
  explicit PendingCollective(const CollectivePlan& plan) : plan_(plan) {}

  absl::Status Start(RunState& state) {
    const UseScope use(plan_, state);
    RETURN_IF_ERROR(TakeOperands(state));
    if (plan_.group == nullptr) return CopyLocally(state);
    PrepareReceive(state);
    PrepareSend();
    CollectiveCall call;
    call.kind = plan_.kind;
    call.reduce = plan_.reduce;
    call.root = plan_.root;
    call.shift = plan_.shift;
    call.dtype = dtype_;
    call.recv = {BytesOf(recv_), static_cast<size_t>(plan_.recv_bytes)};
    if (plan_.kind != CollectiveKind::kBroadcast) {
      call.send = {BytesOf(send_), static_cast<size_t>(plan_.send_bytes)};
    }
    ASSIGN_OR_RETURN(handle_, plan_.group->Start(call));
    return absl::OkStatus();
  }

  absl::Status Wait(RunState& state) {
    const UseScope use(plan_, state);
    if (plan_.group == nullptr) return absl::OkStatus();
    RETURN_IF_ERROR(plan_.group->Wait(handle_));
    send_.reset();
    operands_.clear();
    if (plan_.receives_in_place) return absl::OkStatus();
    AllocateResults(state);
    std::vector<at::Tensor> results;
    for (const ValueLayout& layout : plan_.results) results.push_back(state.tensor(layout.id));
    Unpack(BytesOf(recv_), plan_.recv_cuts, results);
    return absl::OkStatus();
  }

  void set_dtype(DType dtype) { dtype_ = dtype; }

 private:
  absl::Status TakeOperands(const RunState& state) {
    for (const ValueLayout& layout : plan_.operands) {
      ASSIGN_OR_RETURN(at::Tensor operand, LiveTensor(layout.id, state));
      operands_.push_back(std::move(operand));
    }
    return absl::OkStatus();
  }

  void AllocateResults(RunState& state) const {
    for (const ValueLayout& layout : plan_.results) state.tensor(layout.id) = layout.Allocate();
  }

  absl::Status CopyLocally(RunState& state) {
    AllocateResults(state);
    for (size_t i = 0; i < operands_.size(); ++i) {
      state.tensor(plan_.results[i].id).copy_(operands_[i]);
    }
    operands_.clear();
    return absl::OkStatus();
  }

  void PrepareReceive(RunState& state) {
    if (plan_.receives_in_place) {
      AllocateResults(state);
      recv_ = state.tensor(plan_.results[0].id);
    } else {
      recv_ = plan_.AllocateBuffer(plan_.recv_bytes);
    }
  }

  void PrepareSend() {
    if (plan_.kind == CollectiveKind::kBroadcast) {
      // One buffer serves both ways; only the root's is sent.
      if (plan_.group->rank() == plan_.root) Pack(operands_, plan_.send_cuts, BytesOf(recv_));
      operands_.clear();
      return;
    }
    if (plan_.sends_in_place) {
      send_ = operands_[0];
      return;
    }
    send_ = plan_.AllocateBuffer(plan_.send_bytes);
    Pack(operands_, plan_.send_cuts, BytesOf(send_));
    operands_.clear();
  }

  const CollectivePlan& plan_;
  DType dtype_ = DType::kF32;
  std::vector<at::Tensor> operands_;
  at::Tensor send_;
  at::Tensor recv_;
  CollectiveHandle handle_;
};

namespace {

class StartStep final : public Step {
 public:
  StartStep(CollectivePlan plan, DType dtype) : plan_(std::move(plan)), dtype_(dtype) {}

  absl::Status Run(RunState& state) override {
    const at::AutoDispatchBelowADInplaceOrView no_autograd;
    auto pending = std::make_shared<PendingCollective>(plan_);
    pending->set_dtype(dtype_);
    RETURN_IF_ERROR(pending->Start(state));
    for (const ValueLayout& layout : plan_.results) state.pending[layout.id] = pending;
    return absl::OkStatus();
  }

 private:
  const CollectivePlan plan_;
  const DType dtype_;
};

class WaitStep final : public Step {
 public:
  explicit WaitStep(std::vector<ValueId> values) : values_(std::move(values)) {}

  absl::Status Run(RunState& state) override {
    const at::AutoDispatchBelowADInplaceOrView no_autograd;
    for (const ValueId id : values_) {
      const auto found = state.pending.find(id);
      // Another result of the same collective was waited for before.
      if (found == state.pending.end()) continue;
      const std::shared_ptr<PendingCollective> pending = found->second;
      std::erase_if(state.pending, [&](const auto& entry) { return entry.second == pending; });
      RETURN_IF_ERROR(pending->Wait(state));
    }
    return absl::OkStatus();
  }

 private:
  const std::vector<ValueId> values_;
};

// One dim per operand; `along` names the attribute.
absl::Status AddCuts(const Instruction& instruction, std::string_view along, int64_t num_blocks,
                     const std::vector<ValueLayout>& layouts, std::vector<BlockCut>& cuts) {
  const std::vector<int64_t> dims = IntsAttribute(instruction, along);
  if (dims.size() != layouts.size()) {
    return InvalidArgument(std::string(along), " lists ", dims.size(), " dims for ", layouts.size(),
                           " tensors");
  }
  for (size_t i = 0; i < dims.size(); ++i) {
    const auto rank = static_cast<int64_t>(layouts[i].sizes.size());
    if (dims[i] < 0 || dims[i] >= rank || layouts[i].sizes[dims[i]] % num_blocks != 0) {
      return InvalidArgument(std::string(along), ": dim ", dims[i], " of tensor ", i,
                             " does not exist or is not a multiple of ", num_blocks);
    }
    cuts.push_back({num_blocks, dims[i]});
  }
  return absl::OkStatus();
}

absl::Status PlanCuts(const Instruction& instruction, int64_t group_size, CollectivePlan& plan) {
  const std::vector<BlockCut> whole(plan.operands.size());
  switch (plan.kind) {
    case CollectiveKind::kAllToAll:
      RETURN_IF_ERROR(AddCuts(instruction, "split", group_size, plan.operands, plan.send_cuts));
      return AddCuts(instruction, "concat", group_size, plan.results, plan.recv_cuts);
    case CollectiveKind::kAllGather:
      plan.send_cuts = whole;
      return AddCuts(instruction, "dim", group_size, plan.results, plan.recv_cuts);
    case CollectiveKind::kReduceScatter:
      plan.recv_cuts = whole;
      return AddCuts(instruction, "dim", group_size, plan.operands, plan.send_cuts);
    default:
      plan.send_cuts = whole;
      plan.recv_cuts = whole;
      return absl::OkStatus();
  }
}

absl::Status PlanBuffers(CollectivePlan& plan) {
  const int64_t send_block = BlockBytes(plan.operands, plan.send_cuts);
  const int64_t recv_block = BlockBytes(plan.results, plan.recv_cuts);
  if (send_block != recv_block) {
    return InvalidArgument("blocks of ", send_block, " bytes are sent, and of ", recv_block,
                           " bytes received; check sizes and dtypes of the results");
  }
  plan.send_bytes = send_block * plan.send_cuts[0].num_blocks;
  plan.recv_bytes = recv_block * plan.recv_cuts[0].num_blocks;
  plan.sends_in_place = plan.operands.size() == 1 && IsBuffer(plan.operands[0], plan.send_cuts[0]);
  plan.receives_in_place = plan.results.size() == 1 && IsBuffer(plan.results[0], plan.recv_cuts[0]);
  return absl::OkStatus();
}

}  // namespace

StepOr PrepareStart(const Instruction& instruction, const StepContext& context) {
  const std::optional<CollectiveKind> kind = CollectiveKindFromName(instruction.op);
  if (!kind.has_value() || *kind == CollectiveKind::kBarrier) {
    return InvalidArgument("'", instruction.op, "' is no collective that can be started");
  }
  ASSIGN_OR_RETURN(CollectivePlan plan, PlanGroup(instruction, *kind, context));
  const std::vector<ValueId> operands = OperandsOf(instruction);
  if (operands.empty() || operands.size() != instruction.results.size()) {
    return InvalidArgument("must have as many results as operands, and at least one");
  }
  const DType dtype = context.program.value(operands[0]).dtype;
  for (size_t i = 0; i < operands.size(); ++i) {
    plan.operands.push_back(ValueLayout::Of(operands[i], context));
    plan.results.push_back(ValueLayout::Of(instruction.results[i], context));
    const bool reduces =
        *kind == CollectiveKind::kAllReduce || *kind == CollectiveKind::kReduceScatter;
    if (reduces && context.program.value(operands[i]).dtype != dtype) {
      return InvalidArgument("operands of one reduction must have one dtype");
    }
  }
  if (*kind == CollectiveKind::kSendRecv) {
    ASSIGN_OR_RETURN(const int64_t shift, IntAttribute(instruction, "shift"));
    plan.shift = static_cast<int>(shift);
  } else if (*kind == CollectiveKind::kBroadcast) {
    ASSIGN_OR_RETURN(const int64_t root, IntAttribute(instruction, "root"));
    plan.root = static_cast<int>(root);
  }
  RETURN_IF_ERROR(PlanCuts(instruction, context.program.mesh.size(plan.axes), plan));
  RETURN_IF_ERROR(PlanBuffers(plan));
  return std::make_unique<StartStep>(std::move(plan), dtype);
}

StepOr PrepareWait(const Instruction& instruction, const StepContext& /*context*/) {
  return std::make_unique<WaitStep>(OperandsOf(instruction));
}

}  // namespace autosp
