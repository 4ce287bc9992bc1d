// Collectives change where elements lie and complete partial sums; what a value means stays.
//
// Every rank executes the same list, so all ranks issue the same collectives in the same order.
// What could still differ between ranks is checked here: groups are spanned by axes of the mesh,
// and the sizes of shards, padding included, are equal on all members.
#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "compiler/checker/interpreter.h"

namespace autosp::checker {

absl::Status Interpreter::RunStart(const Instruction& instruction) {
  const std::vector<ValueId> operands = OperandsOf(instruction);
  if (operands.empty() || operands.size() != instruction.results.size()) {
    return Refuse(instruction, "a collective has one result for each operand");
  }
  for (size_t i = 0; i < operands.size(); ++i) {
    RETURN_IF_ERROR(RunCollective(instruction, i, operands[i], instruction.results[i]));
  }
  ++num_collectives_;
  return absl::OkStatus();
}

namespace {

// The dimension that `key` gives for operand `index`; -1: none.
int64_t DimAttribute(const Instruction& instruction, std::string_view key, size_t index,
                     const PlacedDims& dims) {
  const std::vector<int64_t> listed = IntsAttribute(instruction, key);
  const bool fits = index < listed.size() && listed[index] >= 0 &&
                    listed[index] < static_cast<int64_t>(dims.size());
  return fits ? listed[index] : -1;
}

// Part i of the whole at member i, or the parts of all members side by side.
bool AreParts(const PlacedDims& whole, const PlacedDims& parts, int64_t dim, const AxisList& axes,
              const Mesh& mesh) {
  return dim >= 0 && whole.size() == parts.size() &&
         SplitOver(whole[dim], axes, mesh) == parts[dim];
}

// nullopt: the kind of collective is not known.
std::optional<bool> Moves(const Instruction& instruction, size_t index, const PlacedDims& from,
                          const PlacedDims& to, const AxisList& axes, const Mesh& mesh) {
  std::vector<int64_t> changed;
  bool fits = from.size() == to.size();
  if (instruction.op == "all_to_all") {
    const int64_t split = DimAttribute(instruction, "split", index, from);
    const int64_t concat = DimAttribute(instruction, "concat", index, from);
    changed = {split, concat};
    fits = fits && split != concat && AreParts(from, to, split, axes, mesh) &&
           AreParts(to, from, concat, axes, mesh);
  } else if (instruction.op == "all_gather") {
    changed = {DimAttribute(instruction, "dim", index, from)};
    fits = fits && AreParts(to, from, changed[0], axes, mesh);
  } else if (instruction.op == "reduce_scatter") {
    changed = {DimAttribute(instruction, "dim", index, from)};
    fits = fits && AreParts(from, to, changed[0], axes, mesh);
  } else if (instruction.op != "all_reduce") {
    return std::nullopt;
  }
  for (size_t i = 0; fits && i < to.size(); ++i) {
    const bool may_change = std::ranges::count(changed, static_cast<int64_t>(i)) > 0;
    fits = may_change || to[i] == from[i];
  }
  return fits;
}

}  // namespace

absl::Status Interpreter::CheckGroup(const Instruction& instruction, const AxisList& axes) const {
  AxisList sorted = axes;
  std::ranges::sort(sorted);
  // The iterations of a loop are no members of a group.
  const AxisList loops(kLoopAxes.begin(), kLoopAxes.end());
  const bool is_group = !axes.empty() && Nontrivial(program_.mesh, axes) == axes &&
                        !HoldsAny(axes, loops) && sorted == axes &&
                        std::ranges::adjacent_find(axes) == axes.end();
  if (is_group) return absl::OkStatus();
  return Refuse(instruction, "a group is spanned by different axes of the mesh, outermost first");
}

absl::Status Interpreter::RunCollective(const Instruction& instruction, size_t index,
                                        ValueId operand, ValueId result) {
  if (instruction.op == "send_recv") return RunSendRecv(instruction, operand, result);
  ASSIGN_OR_RETURN(const ValueState* from, Read(instruction, operand));
  ASSIGN_OR_RETURN(const AxisList axes, AxesAttribute(instruction));
  RETURN_IF_ERROR(CheckGroup(instruction, axes));
  ValueState moved = *from;
  moved.dims = StatedDims(result);
  const std::optional<bool> moves =
      Moves(instruction, index, from->dims, moved.dims, axes, program_.mesh);
  if (!moves) {
    return NotProven(instruction,
                     absl::StrCat("the checker does not know the collective ", instruction.op));
  }
  if (!*moves) {
    return Refuse(instruction, absl::StrCat("over ", AxisListName(axes), " it does not make ",
                                            ToText(moved.dims), " of ", ToText(from->dims)));
  }
  if (program_.value(result).dtype != program_.value(operand).dtype) {
    return Refuse(instruction, "a collective does not change the dtype");
  }
  const bool reduces = instruction.op == "all_reduce" || instruction.op == "reduce_scatter";
  if (reduces) {
    ASSIGN_OR_RETURN(const std::string reduction, StringAttribute(instruction, "reduction"));
    const std::string needed = from->reduction == Reduction::kMax ? "max" : "sum";
    if (!HoldsAll(from->partial, axes) || reduction != needed) {
      return Refuse(instruction,
                    absl::StrCat("it reduces by ", reduction, " over ", AxisListName(axes),
                                 ", but %", NameOf(operand), " is a partial ", needed, " over [",
                                 AxisListName(from->partial), "]"));
    }
    moved.partial = Minus(moved.partial, axes);
    for (auto& [key, pad] : moved.pads) pad = PadOfAllRanks(pad);
  } else if (HoldsAny(from->partial, axes)) {
    return Refuse(instruction, absl::StrCat("it moves parts of a partial sum over ",
                                            AxisListName(from->partial), " between its members"));
  }
  return Define(instruction, result, std::move(moved));
}

// Around the ring: each member gets what the member `shift` places before it held.
absl::Status Interpreter::RunSendRecv(const Instruction& instruction, ValueId operand,
                                      ValueId result) {
  ASSIGN_OR_RETURN(const ValueState* from, ReadAnywhere(instruction, operand));
  ASSIGN_OR_RETURN(const AxisList axes, AxesAttribute(instruction));
  ASSIGN_OR_RETURN(const int64_t shift, IntAttribute(instruction, "shift"));
  const int64_t ring = program_.mesh.ring;
  if (axes != AxisList{Axis::kRing} || ring == 1 || Holds(from->partial, Axis::kRing)) {
    return Refuse(instruction, "shards travel between members of the ring, and no partial sums");
  }
  if (program_.value(result).dtype != program_.value(operand).dtype) {
    return Refuse(instruction, "a collective does not change the dtype");
  }
  ValueState moved = *from;
  moved.rotation = ((from->rotation + shift) % ring + ring) % ring;
  return Define(instruction, result, std::move(moved));
}

// Each rank has written its part of what all of them hold: the parts of all ranks make it whole.
absl::Status Interpreter::UpdateAllGather(const Instruction& instruction) {
  ASSIGN_OR_RETURN(const AxisList axes, AxesAttribute(instruction));
  RETURN_IF_ERROR(CheckGroup(instruction, axes));
  const size_t num_args = instruction.args.size();
  const auto* wholes = num_args == 2 ? std::get_if<ValueList>(&instruction.args[0]) : nullptr;
  const auto* parts = num_args == 2 ? std::get_if<ValueList>(&instruction.args[1]) : nullptr;
  if (wholes == nullptr || parts == nullptr || wholes->size() != parts->size()) {
    return Refuse(instruction, "it gathers a list of parts into a list of wholes");
  }
  for (size_t i = 0; i < wholes->size(); ++i) {
    const ValueId id = (*wholes)[i];
    ASSIGN_OR_RETURN(const ValueState* part, Read(instruction, (*parts)[i]));
    ValueState gathered = *part;
    gathered.dims = StatedDims(id);
    const int64_t dim = DimAttribute(instruction, "dim", i, gathered.dims);
    bool fits = AreParts(gathered.dims, part->dims, dim, axes, program_.mesh) &&
                program_.value(id).dtype == program_.value((*parts)[i]).dtype;
    for (size_t j = 0; fits && j < gathered.dims.size(); ++j) {
      fits = static_cast<int64_t>(j) == dim || gathered.dims[j] == part->dims[j];
    }
    if (!fits || HoldsAny(part->partial, axes) || !state(id).is_defined) {
      return Refuse(instruction, absl::StrCat("over ", AxisListName(axes), " %",
                                              NameOf((*parts)[i]), ", which is ",
                                              ToText(part->dims), ", is no part of %", NameOf(id)));
    }
    RETURN_IF_ERROR(Overwrite(instruction, id, std::move(gathered)));
  }
  ++num_collectives_;
  return absl::OkStatus();
}

}  // namespace autosp::checker
