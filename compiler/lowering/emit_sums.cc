// Numbers that are partial sums over ranks and micro-steps: losses, which are added as such, and
// what buffers are given once all micro-steps have added to them.
#include <algorithm>
#include <utility>

#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/lowering/forward_lowering.h"

namespace autosp {
namespace {

bool IsAdd(const Node& node) {
  return node.op == "aten.add.Tensor" || node.op == "aten.sub.Tensor";
}

}  // namespace

// What a value is a partial sum over, where it is known at one placement and nothing of it is
// split.
const Placement* ForwardLowering::PlacementOfSum(ValueId value) const {
  const auto& versions = versions_[value.index];
  if (is_lazy_[value.index] || versions.size() != 1) return nullptr;
  const Placement& at = versions[0].placement;
  const bool is_sum = !at.partial.axes.empty() && at.partial.reduction == Reduction::kSum;
  return is_sum ? &at : nullptr;
}

// The axes over which a node adds partial sums, so that its result is one too: losses that are
// added need be known whole nowhere. Over axes that only one of them has partial sums on, it is
// summed first; but a sum over the micro-steps is known only after them, and what is added to one
// (a penalty of weights) is shared out instead.
AxisList ForwardLowering::AxesOfAddedSums(const Node& node) const {
  if ((!IsAdd(node) && node.op != "aten.cat.default") || in_prologue_) return {};
  AxisList any;
  AxisList all = {kAllAxes.begin(), kAllAxes.end()};
  for (ValueId value : OperandsOf(node)) {
    const FactorDims dims = Dims(value);
    if (HoldsPart(dims, batch_run_) || HoldsTokens(dims)) return {};
    const Placement* sum = PlacementOfSum(value);
    if (sum != nullptr && !(sum->run.empty() && sum->ring_run.empty())) return {};
    const AxisList axes = sum == nullptr ? AxisList{} : sum->partial.axes;
    any = Union(any, axes);
    all = Without(all, Without(all, axes));
  }
  if (Contains(any, Axis::kAccum)) return any;
  const bool adds_two = IsAdd(node) && OperandsOf(node).size() == 2;
  return adds_two && in_.graph.type(node.outputs[0]).rank() == 0 ? all : AxisList{};
}

// A sum over the micro-steps that is whole on every rank can only be carried on, which a split
// would end.
bool ForwardLowering::CarriesMicroSteps(const Node& node) const {
  const std::vector<ValueId> values = OperandsOf(node);
  return std::ranges::any_of(values, [this](ValueId value) {
    const Placement* sum = PlacementOfSum(value);
    return sum != nullptr && sum->run.empty() && sum->ring_run.empty() &&
           Contains(sum->partial.axes, Axis::kAccum);
  });
}

// The operands of such a node, each a partial sum over `axes`.
absl::StatusOr<std::vector<ValueId>> ForwardLowering::AddedSums(const Node& node,
                                                                const AxisList& axes) {
  std::vector<ValueId> result;
  for (ValueId value : OperandsOf(node)) {
    if (PlacementOfSum(value) == nullptr) {
      ASSIGN_OR_RETURN(const ValueId whole, Get(value, {}));
      result.push_back(ShareOf(builder_.Cast(whole, in_.graph.type(node.outputs[0]).dtype), axes));
      continue;
    }
    const ValueId id = versions_[value.index][0].id;
    const AxisList own = Without(builder_.value(id).partial.axes, axes);
    result.push_back(ShareOf(own.empty() ? id : builder_.AllReduce(id, own), axes));
  }
  return result;
}

// A number that all hold, as a partial sum: each adds its share.
ValueId ForwardLowering::ShareOf(ValueId value, const AxisList& axes) {
  const AxisList missing = Without(axes, builder_.value(value).partial.axes);
  if (missing.empty()) return value;
  ProgramValue type = builder_.Like(value);
  type.partial.axes = axes;
  return builder_.Call("aten.mul.Tensor", {value, 1.0 / static_cast<double>(mesh().size(missing))},
                       std::move(type));
}

// loss + 0.5: the number is shared out as well.
void ForwardLowering::ShareAddedNumber(const Node& node, const Partial& partial,
                                       std::vector<Argument>& args) {
  const std::optional<double> number = NumberArgument(args, 1);
  if (!IsAdd(node) || partial.axes.empty() || !number) return;
  const DType dtype = in_.graph.type(node.outputs[0]).dtype;
  const ValueId one = builder_.Call("aten.ones.default", {IntList{}, dtype, None{}, None{}, None{}},
                                    builder_.Typed(dtype, {}));
  const ValueId whole = builder_.Call("aten.mul.Tensor", {one, *number}, builder_.Typed(dtype, {}));
  args[1] = ShareOf(whole, partial.axes);
}

// What buffers are given may wait until all micro-steps have added their parts of a sum.
bool ForwardLowering::IsSumOfMicroSteps(ValueId value) const {
  const Placement* sum = PlacementOfSum(value);
  return sum != nullptr && Contains(sum->partial.axes, Axis::kAccum);
}

bool ForwardLowering::WaitsForSum(const Node& node) const {
  return std::ranges::any_of(OperandsOf(node), [this](ValueId value) {
    return is_late_[value.index] || IsSumOfMicroSteps(value);
  });
}

std::vector<ValueId> ForwardLowering::SumsBefore(ValueId value) const {
  std::set<ValueId> seen;
  std::vector<ValueId> sums;
  std::vector<ValueId> pending = {value};
  while (!pending.empty()) {
    const ValueId at = pending.back();
    pending.pop_back();
    if (!seen.insert(at).second) continue;
    if (IsSumOfMicroSteps(at)) {
      sums.push_back(at);
    } else if (is_late_[at.index]) {
      const std::vector<ValueId> operands = OperandsOf(in_.graph.nodes[definer_[at.index]]);
      pending.insert(pending.end(), operands.begin(), operands.end());
    }
  }
  return sums;
}

absl::StatusOr<ValueId> ForwardLowering::WholeValue(ValueId value) {
  Placement whole{.batch_split = false, .run = {}, .ring_run = {}, .partial = {}};
  if (IsSumOfMicroSteps(value)) whole.partial = PlacementOfSum(value)->partial;
  return Get(value, whole);
}

absl::StatusOr<std::vector<ValueId>> ForwardLowering::LowerAfter(
    const std::vector<ValueId>& values, const std::map<ValueId, ValueId>& sums,
    std::vector<Instruction>* prologue) {
  const Placement whole{.batch_split = false, .run = {}, .ring_run = {}, .partial = {}};
  for (const auto& [value, id] : sums) {
    AddVersion(value, {.placement = Normalized(value, whole), .pad = {}, .id = id});
  }
  const std::vector<bool> is_needed = NodesFor(values);
  for (size_t i = 0; i < is_needed.size(); ++i) {
    if (!is_needed[i] || IsLazy(in_.graph.nodes[i])) continue;
    RETURN_IF_ERROR(LowerNode(i, ChoosePlacement(i, RolesOf(i))));
  }
  std::vector<ValueId> results;
  for (const ValueId value : values) {
    ASSIGN_OR_RETURN(results.emplace_back(), WholeValue(value));
  }
  TakePrologue(prologue);
  return results;
}

// What must be known of all micro-steps before the first.
void ForwardLowering::TakePrologue(std::vector<Instruction>* prologue) {
  if (prologue_loop_.empty()) return;
  const auto append = [prologue](std::vector<Instruction>& part) {
    for (Instruction& instruction : part) prologue->push_back(std::move(instruction));
  };
  append(prologue_before_);
  Instruction loop;
  loop.kind = InstructionKind::kFor;
  loop.op = "accum";
  loop.attributes["count"] = SymInt(mesh().accum);
  loop.body = std::move(prologue_loop_);
  prologue->push_back(std::move(loop));
  append(prologue_after_);
}

}  // namespace autosp
