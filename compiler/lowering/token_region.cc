#include "compiler/lowering/token_region.h"

#include <algorithm>
#include <string>
#include <utility>

namespace autosp {

bool TokenRegion::Enter(const Instruction& instruction) {
  if (!IsOfTokens(instruction) || !instruction.body.empty()) return false;
  for (ValueId id : ReadsOf(instruction)) {
    const bool is_outer_tape = program_.value(id).is_tape && !inside_.contains(id);
    if (is_outer_tape || !IsTileable(program_.value(id), factor_)) return false;
  }
  if (!MayWrite(instruction)) return false;
  for (ValueId id : instruction.results) {
    if (!IsTileable(program_.value(id), factor_)) return false;
    inside_.insert(id);
  }
  return true;
}

bool TokenRegion::Reads(const Instruction& instruction) const {
  return std::ranges::any_of(AllReadsOf(instruction),
                             [this](ValueId id) { return inside_.contains(id); });
}

bool TokenRegion::AddsToTokensOutside(const Instruction& instruction) const {
  if (instruction.kind != InstructionKind::kAccumulate) return false;
  const ValueId to = OperandsOf(instruction)[0];
  return !inside_.contains(to) && HasFactor(program_.value(to), factor_.factor);
}

// From outside only sums over all tokens are written, by additions.
bool TokenRegion::MayWrite(const Instruction& instruction) const {
  const bool adds = instruction.kind == InstructionKind::kAccumulate;
  if (!adds && instruction.kind != InstructionKind::kUpdate) return true;
  const ValueId written = OperandsOf(instruction)[0];
  if (inside_.contains(written)) return true;
  const bool is_sum = adds || instruction.op == "autosp.matmul_accumulate_";
  return is_sum && !HasFactor(program_.value(written), factor_.factor);
}

bool TokenRegion::MixesSums(const Instruction& instruction) const {
  if (instruction.op != "aten.add.Tensor" && instruction.op != "aten.sub.Tensor") return false;
  const auto is_sum = [this](ValueId id) {
    return inside_.contains(id) && !HasFactor(program_.value(id), factor_.factor);
  };
  const std::vector<ValueId> operands = OperandsOf(instruction);
  return std::ranges::any_of(operands, is_sum) && !std::ranges::all_of(operands, is_sum);
}

bool TokenRegion::MayLeave(ValueId id, bool sums) const {
  const ProgramValue& value = program_.value(id);
  if (value.is_tape || !IsFloating(value.dtype)) return false;
  if (!IsContiguous({program_.LocalSizes(value), program_.LocalStrides(value)})) return false;
  return sums || HasFactor(value, factor_.factor);
}

bool TokenRegion::Leave(const Instruction& outside, bool sums) {
  for (ValueId id : AllReadsOf(outside)) {
    if (!inside_.contains(id)) continue;
    if (!MayLeave(id, sums)) return false;
    if (std::ranges::count(exits_, id) == 0) exits_.push_back(id);
  }
  return true;
}

std::map<ValueId, ValueId> MakeExits(ProgramBuilder& builder, const std::vector<ValueId>& exits) {
  std::map<ValueId, ValueId> wholes;
  for (ValueId id : exits) {
    const Sizes sizes = builder.LocalSizes(id);
    wholes[id] = builder.Call(
        "aten.zeros.default",
        {IntList(sizes.begin(), sizes.end()), builder.value(id).dtype, None{}, None{}, None{}},
        builder.Like(id));
  }
  return wholes;
}

Instruction TileLoop(const Program& program) {
  Instruction loop;
  loop.kind = InstructionKind::kFor;
  loop.op = std::string(AxisName(Axis::kTile));
  loop.attributes["count"] = SymInt(program.mesh.tile);
  return loop;
}

}  // namespace autosp
