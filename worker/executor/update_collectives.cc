// Collectives that write in place: all_reduce_ and all_gather_.

#include <ATen/core/LegacyTypeDispatch.h>

#include <string>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/collective_plan.h"

namespace autosp {
namespace {

// One call for each tensor, in place: no buffer, however large the gradients are.
class AllReduceUpdateStep final : public Step {
 public:
  AllReduceUpdateStep(CollectivePlan plan, std::vector<ValueId> values, const Program& program)
      : plan_(std::move(plan)), values_(std::move(values)), program_(program) {}

  absl::Status Run(RunState& state) override {
    if (plan_.group == nullptr) return absl::OkStatus();
    const UseScope use(plan_, state);
    const MemoryScope scope(plan_.buffers);
    const at::AutoDispatchBelowADInplaceOrView no_autograd;
    for (const ValueId id : values_) {
      ASSIGN_OR_RETURN(const at::Tensor tensor, LiveTensor(id, state));
      const bool is_dense = tensor.is_non_overlapping_and_dense();
      const at::Tensor flat = is_dense ? tensor : tensor.contiguous();
      const absl::Span<std::byte> bytes(BytesOf(flat), flat.nbytes());
      RETURN_IF_ERROR(plan_.group->AllReduce(bytes, bytes, program_.value(id).dtype, plan_.reduce));
      if (!is_dense) tensor.copy_(flat);
    }
    return absl::OkStatus();
  }

 private:
  const CollectivePlan plan_;
  const std::vector<ValueId> values_;
  const Program& program_;
};

// Puts the parts of all ranks into wholes, one call for each.
class AllGatherUpdateStep final : public Step {
 public:
  AllGatherUpdateStep(CollectivePlan plan) : plan_(std::move(plan)) {}

  absl::Status Run(RunState& state) override {
    const UseScope use(plan_, state);
    const at::AutoDispatchBelowADInplaceOrView no_autograd;
    for (size_t i = 0; i < plan_.results.size(); ++i) {
      ASSIGN_OR_RETURN(const at::Tensor whole, LiveTensor(plan_.results[i].id, state));
      ASSIGN_OR_RETURN(const at::Tensor part, LiveTensor(plan_.operands[i].id, state));
      if (plan_.group == nullptr) {
        whole.copy_(part);
      } else if (IsBuffer(plan_.results[i], plan_.recv_cuts[i])) {
        // The part lies in the whole at its place, where it stays.
        RETURN_IF_ERROR(Gather(part, whole));
      } else {
        RETURN_IF_ERROR(GatherThroughBuffers(part, whole, plan_.recv_cuts[i]));
      }
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Gather(const at::Tensor& part, const at::Tensor& whole) const {
    return plan_.group->AllGather({BytesOf(part), static_cast<size_t>(part.nbytes())},
                                  {BytesOf(whole), static_cast<size_t>(whole.nbytes())});
  }

  absl::Status GatherThroughBuffers(const at::Tensor& part, const at::Tensor& whole,
                                    const BlockCut& cut) const {
    const at::Tensor send = plan_.AllocateBuffer(static_cast<int64_t>(part.nbytes()));
    const at::Tensor recv = plan_.AllocateBuffer(static_cast<int64_t>(whole.nbytes()));
    Pack({part}, {BlockCut{}}, BytesOf(send));
    RETURN_IF_ERROR(Gather(send, recv));
    Unpack(BytesOf(recv), {cut}, {whole});
    return absl::OkStatus();
  }

  const CollectivePlan plan_;
};

// The wholes and their parts.
absl::Status PlanParts(const Instruction& instruction, const StepContext& context,
                       CollectivePlan& plan) {
  const std::vector<int64_t> dims = IntsAttribute(instruction, "dim");
  const auto* wholes =
      instruction.args.size() == 2 ? std::get_if<ValueList>(&instruction.args[0]) : nullptr;
  const auto* parts = wholes == nullptr ? nullptr : std::get_if<ValueList>(&instruction.args[1]);
  if (parts == nullptr || wholes->size() != parts->size() || dims.size() != parts->size()) {
    return InvalidArgument("must have a list of wholes, a list of parts and dim, as long as each ",
                           "other");
  }
  const int64_t group_size = context.program.mesh.size(plan.axes);
  for (size_t i = 0; i < parts->size(); ++i) {
    plan.results.push_back(ValueLayout::Of((*wholes)[i], context));
    plan.operands.push_back(ValueLayout::Of((*parts)[i], context));
    auto sizes = plan.operands.back().sizes;
    const bool has_dim = dims[i] >= 0 && dims[i] < static_cast<int64_t>(sizes.size());
    if (has_dim) sizes[dims[i]] *= group_size;
    if (!has_dim || sizes != plan.results.back().sizes) {
      return InvalidArgument("dim ", dims[i], ": ", group_size, " times part ", i,
                             " is not the whole");
    }
    plan.recv_cuts.push_back({group_size, dims[i]});
  }
  return absl::OkStatus();
}

}  // namespace

StepOr PrepareAllReduceUpdate(const Instruction& instruction, const StepContext& context) {
  ASSIGN_OR_RETURN(CollectivePlan plan,
                   PlanGroup(instruction, CollectiveKind::kAllReduce, context));
  return std::make_unique<AllReduceUpdateStep>(std::move(plan), OperandsOf(instruction),
                                               context.program);
}

StepOr PrepareAllGatherUpdate(const Instruction& instruction, const StepContext& context) {
  ASSIGN_OR_RETURN(CollectivePlan plan,
                   PlanGroup(instruction, CollectiveKind::kAllGather, context));
  RETURN_IF_ERROR(PlanParts(instruction, context, plan));
  return std::make_unique<AllGatherUpdateStep>(std::move(plan));
}

}  // namespace autosp
