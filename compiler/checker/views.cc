// Aliases: the strides and the offset are what a rank uses, the op says what they mean. Both are
// derived from the operand and compared.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "compiler/checker/interpreter.h"
#include "compiler/checker/strided_memory.h"

namespace autosp::checker {
namespace {

bool IsReshape(const std::string& op) {
  return op == "aten.view.default" || op == "aten.reshape.default" ||
         op == "aten._unsafe_view.default";
}

// The axes that a rank-dependent offset names, outermost first, with the step of each.
struct RankTerms {
  AxisList axes;
  std::vector<int64_t> steps;
};

// What stands for the place on an axis in an offset: a rank's own place, or the loop's variable.
std::string VariableOf(Axis axis) {
  const std::string name(AxisName(axis));
  return axis == Axis::kTile ? name : absl::StrCat("rank.", name);
}

RankTerms RankTermsOf(const LinearExpr& offset, const LinearExpr& inherited, bool* known) {
  RankTerms result;
  for (Axis axis : kAllAxes) {
    const std::string name = VariableOf(axis);
    int64_t step = 0;
    for (const auto& [variable, coefficient] : offset.terms) {
      if (variable == name) step += coefficient;
    }
    for (const auto& [variable, coefficient] : inherited.terms) {
      if (variable == name) step -= coefficient;
    }
    if (step == 0) continue;
    result.axes.push_back(axis);
    result.steps.push_back(step);
  }
  for (const auto& [variable, coefficient] : offset.terms) {
    *known = *known && std::ranges::any_of(kAllAxes, [&variable = variable](Axis axis) {
      return variable == VariableOf(axis);
    });
  }
  return result;
}

}  // namespace

absl::Status Interpreter::RunAlias(const Instruction& instruction) {
  const std::vector<ValueId> ids = OperandsOf(instruction);
  const ValueId id = instruction.results[0];
  const ProgramValue& value = program_.value(id);
  if (ids.size() != 1) return Refuse(instruction, "a view has one operand");
  const ProgramValue& of = program_.value(ids[0]);
  // A part of a partial sum may be viewed again on the way to an addition.
  ValueState operand = state(ids[0]);
  if (operand.part_of_sum.empty()) {
    RETURN_IF_ERROR(CheckComplete(instruction, ids[0]));
    RETURN_IF_ERROR(CheckAtHome(instruction, ids[0]));
    RETURN_IF_ERROR(CheckReadable(instruction, ids[0]));
  }
  if (value.storage != of.storage || value.account != of.account || value.dtype != of.dtype) {
    return Refuse(instruction, absl::StrCat("%", value.name, " is a view of %", of.name,
                                            " but has another memory, account or dtype"));
  }
  OpCall call{program_, instruction, {operand.dims}, {StatedDims(id)}};
  ValueState result = operand;
  result.step = {};
  const std::string& op = instruction.op;
  absl::Status status;
  if (IsReshape(op)) {
    status = View(call, &result);
  } else if (op == "aten.permute.default") {
    status = PermuteView(call, &result);
  } else if (op == "aten.expand.default") {
    status = ExpandView(call, &result);
  } else if (op == "aten.slice.Tensor") {
    status = SliceView(call, ids[0], &result);
  } else if (op == "aten.select.int") {
    status = SelectView(call, &result);
  } else if (op != "aten.alias.default") {
    status = NotProven(instruction, absl::StrCat("the checker does not know the view ", op));
  } else if (!SamePlaces(MemoryOf(program_, id), MemoryOf(program_, ids[0]))) {
    status = Refuse(instruction, "the alias lies at other places than its operand");
  }
  RETURN_IF_ERROR(status);
  const ProgramValue& owner = program_.values[storage_owner_[value.storage.index]];
  if (!StaysWithin(MemoryOf(program_, id), program_.mesh, program_.LocalNumel(owner))) {
    return Refuse(instruction, absl::StrCat("the view leaves the memory of %", owner.name));
  }
  if (!result.part_of_sum.empty()) {
    // Stated as the partial sum that it is a part of.
    ValueState whole = result;
    whole.partial = Plus(result.partial, result.part_of_sum);
    RETURN_IF_ERROR(CheckType(instruction, id, whole));
  } else {
    RETURN_IF_ERROR(CheckStated(instruction, id, result));
  }
  result.parent = ids[0];
  state(id) = std::move(result);
  ++num_values_;
  return absl::OkStatus();
}

absl::Status Interpreter::View(const OpCall& call, ValueState* result) {
  const Instruction& instruction = call.instruction;
  const ValueId id = instruction.results[0];
  if (Flattened(call.results[0]) != Flattened(call.operands[0])) {
    return Refuse(instruction, absl::StrCat("the view makes ", ToText(call.results[0]), " of ",
                                            ToText(call.operands[0]),
                                            ", which are not the same elements in order"));
  }
  const ValueId operand = OperandsOf(instruction)[0];
  if (!SamePlaces(MemoryOf(program_, id), MemoryOf(program_, operand))) {
    return Refuse(instruction, "the view lies at other places than its operand");
  }
  if (call.Ints(1) != program_.LocalSizes(program_.value(id))) {
    return Refuse(instruction, "the sizes are not those of the result on a rank");
  }
  result->step.kind = AliasStep::Kind::kReshape;
  result->dims = call.results[0];
  result->meaning = table_.Reshape(result->meaning, LogicalShape(result->dims));
  return absl::OkStatus();
}

absl::Status Interpreter::PermuteView(const OpCall& call, ValueState* result) {
  const Instruction& instruction = call.instruction;
  const ValueId operand = OperandsOf(instruction)[0];
  const std::vector<int64_t> order = call.Dims(1, call.rank(0));
  std::vector<int64_t> sorted = order;
  std::ranges::sort(sorted);
  StridedMemory memory = MemoryOf(program_, operand);
  StridedMemory permuted{{}, {}, memory.offset};
  PlacedDims dims;
  for (size_t i = 0; i < order.size(); ++i) {
    if (sorted[i] != static_cast<int64_t>(i)) return Refuse(instruction, "not a permutation");
    permuted.sizes.push_back(memory.sizes[order[i]]);
    permuted.strides.push_back(memory.strides[order[i]]);
    dims.push_back(call.operands[0][order[i]]);
  }
  if (order.size() != call.operands[0].size()) return Refuse(instruction, "not a permutation");
  if (!SamePlaces(MemoryOf(program_, instruction.results[0]), permuted)) {
    return Refuse(instruction, "the strides are not those of the permuted operand");
  }
  result->step = {.kind = AliasStep::Kind::kPermute, .order = order};
  result->dims = dims;
  result->meaning = table_.Permute(result->meaning, order);
  return absl::OkStatus();
}

absl::Status Interpreter::ExpandView(const OpCall& call, ValueState* result) {
  const Instruction& instruction = call.instruction;
  const ValueId operand = OperandsOf(instruction)[0];
  const PlacedDims& from = call.operands[0];
  const PlacedDims& to = call.results[0];
  const StridedMemory memory = MemoryOf(program_, operand);
  StridedMemory expanded = MemoryOf(program_, instruction.results[0]);
  const StridedMemory stated = expanded;
  expanded.offset = memory.offset;
  const bool is_constant = table_.IsFull(result->meaning, 1) || result->meaning.is_zero();
  for (size_t i = 0; i < to.size(); ++i) {
    const bool is_new = i + from.size() < to.size();
    const size_t at = i + from.size() - to.size();
    if (!is_new && !from[at].empty()) {
      if (from[at] != to[i]) {
        return Refuse(instruction, absl::StrCat("dimension ", at, " is no single element, and ",
                                                "cannot be stretched"));
      }
      expanded.strides[i] = memory.strides[at];
      continue;
    }
    expanded.strides[i] = 0;
    for (const PadKey& key : PadKeys({to[i]})) {
      const double constant = result->meaning.is_zero() ? 0 : 1;
      PadState pad = is_constant ? PadState::Constant(constant) : PadState::Valid();
      if (!result->holds.is_finite()) pad = PadState::Open();
      result->pads[key] = HasPad(from, key) ? PadOfEither(result->pads[key], pad) : pad;
    }
  }
  if (to.size() < from.size()) return Refuse(instruction, "an expand drops no dimension");
  if (!SamePlaces(stated, expanded)) {
    return Refuse(instruction, "the strides are not those of the stretched operand");
  }
  result->step.kind = AliasStep::Kind::kExpand;
  result->dims = to;
  result->meaning = table_.Expand(result->meaning, LogicalShape(to));
  return absl::OkStatus();
}

absl::Status Interpreter::SliceView(const OpCall& call, ValueId operand, ValueState* result) {
  const Instruction& instruction = call.instruction;
  const ValueId id = instruction.results[0];
  const std::vector<int64_t> dims = call.Dims(1, call.rank(0));
  const int64_t start = call.Int(2).value_or(0);
  const int64_t step = call.Int(4).value_or(1);
  const bool same_rank = call.results[0].size() == call.operands[0].size();
  if (dims.size() != 1 || start < 0 || step < 1 || !same_rank) {
    return Refuse(instruction, "a bad slice");
  }
  const int64_t dim = dims[0];
  const StridedMemory memory = MemoryOf(program_, operand);
  bool known = true;
  const RankTerms terms = RankTermsOf(program_.value(id).offset, memory.offset, &known);
  if (!known) return Refuse(instruction, "the offset depends on something other than the rank");
  if (!terms.axes.empty()) return ShardView(call, operand, dim, result);
  const PlacedDim& from = call.operands[0][dim];
  const PlacedDim& to = call.results[0][dim];
  StridedMemory cut = memory;
  const int64_t size = LocalSize(to);
  cut.sizes[dim] = size;
  cut.offset.base += start * memory.strides[dim];
  cut.strides[dim] *= step;
  const bool inside = start + (size - 1) * step < memory.sizes[dim];
  if (!inside || !SamePlaces(MemoryOf(program_, id), cut) || call.Int(3) != start + size * step) {
    return Refuse(instruction, "the strides and the offset are not those of the slice");
  }
  result->dims[dim] = to;
  result->step = {.kind = AliasStep::Kind::kSlice, .dim = dim, .start = start, .step = step};
  const bool is_all = from == to && start == 0 && step == 1;
  // A padded whole dimension loses its padding, which is at its end.
  const bool unpads =
      EndsWithPadding(from) && start == 0 && step == 1 && to == WithoutPadding(from);
  if (is_all || unpads) {
    result->step.kind = AliasStep::Kind::kSame;
    if (unpads) result->pads.erase(from[0].pad);
    return absl::OkStatus();
  }
  if (!IsWhole(from) || !IsWhole(to)) {
    return Refuse(instruction, absl::StrCat("a slice of what is ", ToText({from}),
                                            " must be the shard of a rank, or all but padding"));
  }
  result->meaning = table_.Slice(result->meaning, dim, start, size, step);
  return absl::OkStatus();
}

// A part chosen by the place of the rank must be the shard that the layout gives to that place.
absl::Status Interpreter::ShardView(const OpCall& call, ValueId operand, size_t dim,
                                    ValueState* result) {
  const Instruction& instruction = call.instruction;
  const ValueId id = instruction.results[0];
  const StridedMemory memory = MemoryOf(program_, operand);
  bool known = true;
  const RankTerms terms = RankTermsOf(program_.value(id).offset, memory.offset, &known);
  const PlacedDim& to = call.results[0][dim];
  const std::optional<PlacedDim> shard =
      SplitOver(call.operands[0][dim], terms.axes, program_.mesh);
  if (!shard || *shard != to || call.Int(2) != 0 || call.Int(4).value_or(1) != 1) {
    return Refuse(instruction,
                  absl::StrCat("the part of ", ToText({call.operands[0][dim]}), " by place on ",
                               AxisListName(terms.axes), " is not ", ToText({to})));
  }
  StridedMemory part = memory;
  part.sizes[dim] = LocalSize(to);
  int64_t step = LocalSize(to) * memory.strides[dim];
  for (size_t i = terms.axes.size(); i-- > 0;) {
    part.offset.terms.emplace_back(VariableOf(terms.axes[i]), step);
    step *= program_.mesh.size(terms.axes[i]);
  }
  if (!SamePlaces(MemoryOf(program_, id), part) || Holds(terms.axes, Axis::kAccum)) {
    return Refuse(instruction, absl::StrCat("the offset is not that of the rank's shard of ",
                                            LocalSize(to), " elements"));
  }
  result->dims[dim] = to;
  result->step = {
      .kind = AliasStep::Kind::kShard, .dim = static_cast<int64_t>(dim), .axes = terms.axes};
  if (HoldsAny(result->partial, terms.axes)) {
    if (!HoldsAll(result->partial, terms.axes)) {
      return Refuse(instruction, "a part of what is a partial sum over some of the same axes");
    }
    result->partial = Minus(result->partial, terms.axes);
    result->part_of_sum = terms.axes;
  }
  return absl::OkStatus();
}

absl::Status Interpreter::SelectView(const OpCall& call, ValueState* result) {
  const Instruction& instruction = call.instruction;
  const ValueId operand = OperandsOf(instruction)[0];
  const std::vector<int64_t> dims = call.Dims(1, call.rank(0));
  const int64_t index = call.Int(2).value_or(-1);
  if (dims.size() != 1 || index < 0) return Refuse(instruction, "a bad select");
  const int64_t dim = dims[0];
  StridedMemory chosen = MemoryOf(program_, operand);
  if (!IsWhole(call.operands[0][dim]) || index >= chosen.sizes[dim]) {
    return Refuse(instruction,
                  absl::StrCat("an element of what is ", ToText({call.operands[0][dim]}),
                               " is not on every rank"));
  }
  chosen.offset.base += index * chosen.strides[dim];
  chosen.sizes.erase(chosen.sizes.begin() + dim);
  chosen.strides.erase(chosen.strides.begin() + dim);
  if (!SamePlaces(MemoryOf(program_, instruction.results[0]), chosen)) {
    return Refuse(instruction, "the strides and the offset are not those of the element");
  }
  result->step = {.kind = AliasStep::Kind::kSelect, .dim = dim, .start = index};
  result->dims.erase(result->dims.begin() + dim);
  result->meaning = table_.RemoveDim(table_.Slice(result->meaning, dim, index, 1, 1), dim);
  return absl::OkStatus();
}

}  // namespace autosp::checker
