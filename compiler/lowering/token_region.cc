#include "compiler/lowering/token_region.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

namespace autosp {
namespace {

// Dimensions, outermost in memory first.
std::vector<int64_t> MemoryOrder(const StridedShape& shape) {
  std::vector<int64_t> order(shape.sizes.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater<>(), [&](int64_t dim) {
    return shape.sizes[dim] == 1 ? std::numeric_limits<int64_t>::max() : shape.strides[dim];
  });
  return order;
}

}  // namespace

bool TokenRegion::Enter(const Instruction& instruction) {
  if (!IsOfTokens(instruction) || !instruction.body.empty()) return false;
  for (ValueId id : ReadsOf(instruction)) {
    const bool is_outer_tape = program_.value(id).is_tape && !inside_.contains(id);
    if (is_outer_tape || !IsTileable(program_.value(id), factor_)) return false;
    if (!inside_.contains(id) && IsStretched(program_.value(id))) return false;
  }
  if (!MayWrite(instruction) || !KeepsTokens(instruction)) return false;
  if (!IsLinearInSums(instruction)) return false;
  for (ValueId id : instruction.results) {
    if (!IsTileable(program_.value(id), factor_)) return false;
    inside_.insert(id);
  }
  NoteSums(instruction);
  return true;
}

// A slice or a concatenation along the sequence, or a mean over it, has other tokens or none.
// Tokens of what has none are a view that repeats it, or made of nothing.
bool TokenRegion::KeepsTokens(const Instruction& instruction) const {
  if (MayReduceTokens(instruction)) return true;
  const auto may_have = [this](ValueId id) { return MayHaveTokens(id); };
  const std::vector<ValueId> operands = OperandsOf(instruction);
  if (std::ranges::any_of(operands, may_have)) {
    return std::ranges::all_of(instruction.results, may_have);
  }
  return operands.empty() || std::ranges::all_of(instruction.results, [&](ValueId id) {
           return !HasTokens(id) || IsStretched(program_.value(id));
         });
}

bool TokenRegion::HasTokens(ValueId id) const {
  return HasFactor(program_.value(id), factor_.factor);
}

bool TokenRegion::MayHaveTokens(ValueId id) const {
  return program_.value(id).is_tape || HasTokens(id);
}

bool TokenRegion::Reads(const Instruction& instruction) const {
  return std::ranges::any_of(AllReadsOf(instruction),
                             [this](ValueId id) { return inside_.contains(id); });
}

// All tokens share a place, so that a tile has none of its own.
bool TokenRegion::IsStretched(const ProgramValue& value) const {
  const std::vector<int64_t> strides = program_.LocalStrides(value);
  for (size_t i = 0; i < value.dims.size(); ++i) {
    const bool has_factor =
        std::ranges::count(value.dims[i], factor_.factor, &DimFactor::factor) > 0;
    if (has_factor && strides[i] == 0) return true;
  }
  return false;
}

bool TokenRegion::AddsToTokensOutside(const Instruction& instruction) const {
  if (instruction.kind != InstructionKind::kAccumulate) return false;
  const ValueId to = OperandsOf(instruction)[0];
  return !inside_.contains(to) && HasTokens(to);
}

// From outside only sums over all tokens are written, by additions.
bool TokenRegion::MayWrite(const Instruction& instruction) const {
  const bool adds = instruction.kind == InstructionKind::kAccumulate;
  if (!adds && instruction.kind != InstructionKind::kUpdate) return true;
  const ValueId written = OperandsOf(instruction)[0];
  if (inside_.contains(written)) return true;
  const bool is_sum = adds || instruction.op == "autosp.matmul_accumulate_";
  return is_sum && !HasTokens(written);
}

// Of parts of a sum only what is linear gives parts of a sum. What adds a number, or what is no
// sum, would add it again in each tile.
bool TokenRegion::IsLinearInSums(const Instruction& instruction) const {
  const std::vector<ValueId> operands = OperandsOf(instruction);
  const auto is_sum = [this](ValueId id) { return sums_.contains(id); };
  const int64_t num_sums = std::ranges::count_if(operands, is_sum);
  if (num_sums == 0) return true;
  if (instruction.kind != InstructionKind::kCall && instruction.kind != InstructionKind::kRecord) {
    return true;
  }
  const std::string& op = instruction.op;
  if (op == "aten.add.Tensor" || op == "aten.sub.Tensor") return num_sums == 2;
  if (op == "aten.mul.Tensor") return num_sums == 1;
  if (op == "aten.div.Tensor") return num_sums == 1 && is_sum(operands[0]);
  return op == "aten.neg.default" || op == "aten.to.dtype" || op.starts_with("aten.sum.");
}

void TokenRegion::NoteSums(const Instruction& instruction) {
  const auto is_part = [&](ValueId id) {
    return sums_.contains(id) || (MayReduceTokens(instruction) && MayHaveTokens(id));
  };
  const std::vector<ValueId> operands = OperandsOf(instruction);
  if (std::ranges::none_of(operands, is_part)) return;
  std::vector<ValueId> written = instruction.results;
  if (instruction.kind == InstructionKind::kAccumulate) written.push_back(operands[0]);
  for (ValueId id : written) {
    if (inside_.contains(id) && !MayHaveTokens(id)) sums_.insert(id);
  }
}

// Without gaps, whatever the order of its dimensions.
bool TokenRegion::IsDense(const ProgramValue& value) const {
  const StridedShape shape{program_.LocalSizes(value), program_.LocalStrides(value)};
  StridedShape sorted;
  for (int64_t dim : MemoryOrder(shape)) {
    sorted.sizes.push_back(shape.sizes[dim]);
    sorted.strides.push_back(shape.strides[dim]);
  }
  return value.offset == LinearExpr{} && IsContiguous(sorted);
}

bool TokenRegion::MayLeave(ValueId id, bool sums) const {
  const ProgramValue& value = program_.value(id);
  return !value.is_tape && IsFloating(value.dtype) && IsDense(value) && (sums || HasTokens(id));
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
    // Dimensions in the order in which they lie in memory, then as the value has them.
    const std::vector<int64_t> order = MemoryOrder(builder.Shape(id));
    ProgramValue type = builder.Like(id);
    std::vector<int64_t> back(order.size());
    for (size_t i = 0; i < order.size(); ++i) {
      type.dims[i] = builder.value(id).dims[order[i]];
      back[order[i]] = static_cast<int64_t>(i);
    }
    const ValueId zeros = builder.Zeros(std::move(type));
    wholes[id] = std::ranges::is_sorted(order) ? zeros : builder.Permute(zeros, back);
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
