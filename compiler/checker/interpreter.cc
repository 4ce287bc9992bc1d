#include "compiler/checker/interpreter.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp::checker {
Interpreter::Interpreter(const Program& program, ExpressionTable& table)
    : program_(program),
      table_(table),
      states_(program.values.size()),
      storage_versions_(program.num_storages, 0),
      storage_owner_(program.num_storages, -1) {
  stated_.reserve(program.values.size());
  for (const ProgramValue& value : program.values) stated_.push_back(Place(program, value.dims));
}

absl::Status Interpreter::Refuse(const Instruction& instruction, const std::string& why) const {
  if (!instruction.body.empty()) {
    return FailedPrecondition("for ", instruction.op, " of ", instruction.body.size(),
                              " instructions: ", why);
  }
  return FailedPrecondition(PrintInstruction(program_, instruction), instruction.source.Where(),
                            ": ", why);
}

absl::Status Interpreter::NotProven(const Instruction& instruction, const std::string& why) const {
  return Unimplemented(PrintInstruction(program_, instruction), instruction.source.Where(),
                       ": not proven: ", why);
}

absl::Status Interpreter::Run() {
  RETURN_IF_ERROR(CheckPersistents());
  std::set<std::string> names;
  for (const Section& section : program_.sections) {
    // Results are compared by the names of their sections.
    if (!names.insert(section.name).second) {
      return FailedPrecondition("section ", section.name, " is there twice");
    }
    BeginSection(section);
    RETURN_IF_ERROR(WithContext(RunBody(section.body), "section ", section.name));
    RETURN_IF_ERROR(WithContext(EndSection(section), "section ", section.name));
  }
  return absl::OkStatus();
}

// What is trained may be kept in equal parts of the ranks; all else is whole on each of them.
absl::Status Interpreter::CheckPersistents() {
  for (const Persistent& persistent : program_.persistents) {
    const ProgramValue& value = program_.value(persistent.value);
    const PlacedDims& dims = StatedDims(persistent.value);
    const bool may_be_split =
        persistent.kind == PersistentKind::kParam || persistent.kind == PersistentKind::kState;
    const bool is_placed = may_be_split
                               ? PadKeys(dims).empty() && !Holds(ShardAxes(dims), Axis::kAccum)
                               : Nontrivial(program_.mesh, ShardAxes(dims)).empty();
    const bool is_plain = value.partial.axes.empty() && value.strides.empty() &&
                          value.offset == LinearExpr{} && is_placed;
    int32_t& owner = storage_owner_[value.storage.index];
    if (is_plain && owner < 0) {
      owner = persistent.value.index;
      continue;
    }
    return FailedPrecondition("persistent %", value.name,
                              is_plain ? " shares its storage with another one"
                                       : " must be contiguous, no partial sum, and whole or, of a "
                                         "parameter or state, in equal parts of the ranks");
  }
  return absl::OkStatus();
}

// Whatever a section begins with is an input of its own: sections are compared one by one.
void Interpreter::BeginSection(const Section& section) {
  section_ = section.name;
  written_buffers_.clear();
  for (const Persistent& persistent : program_.persistents) {
    const ProgramValue& value = program_.value(persistent.value);
    ValueState initial;
    initial.is_defined = true;
    initial.dims = StatedDims(persistent.value);
    initial.meaning =
        table_.Node(absl::StrCat("persistent ", persistent.name), {}, LogicalShape(initial.dims));
    initial.version = ++storage_versions_[value.storage.index];
    if (persistent.kind == PersistentKind::kBuffer) {
      buffers_[value.storage.index] = persistent.name;
      initial.holds = IsFloating(value.dtype) ? PadState::Unknown() : PadState::Finite();
    }
    state(persistent.value) = std::move(initial);
  }
}

absl::Status Interpreter::EndSection(const Section& section) {
  for (const Persistent& persistent : program_.persistents) {
    const ValueState& last = state(persistent.value);
    if (last.version != storage_versions_[program_.value(persistent.value).storage.index]) {
      return FailedPrecondition("persistent %", NameOf(persistent.value), " (", persistent.name,
                                ") is written in part through another name");
    }
    if (!last.hops.empty()) {
      return FailedPrecondition("persistent %", NameOf(persistent.value), " (", persistent.name,
                                ") lacks hops of the ring at the end");
    }
    if (!last.partial.empty()) {
      return FailedPrecondition("persistent %", NameOf(persistent.value), " (", persistent.name,
                                ") is still a partial sum over ", AxisListName(last.partial),
                                " at the end; a reduction is missing");
    }
    results_[absl::StrCat(section.name, "/persistent/", persistent.name)] = last.meaning;
  }
  return absl::OkStatus();
}

absl::Status Interpreter::RunBody(const std::vector<Instruction>& body) {
  for (const Instruction& instruction : body) RETURN_IF_ERROR(RunOne(instruction));
  return absl::OkStatus();
}

// Enough operands and results for what is done with them; the ops check their own.
bool Interpreter::IsComplete(const Instruction& instruction) const {
  const size_t num_operands = OperandsOf(instruction).size();
  const size_t num_results = instruction.results.size();
  switch (instruction.kind) {
    case InstructionKind::kFeed:
      return num_results == 1;
    case InstructionKind::kCall:
      return num_results >= 1;
    case InstructionKind::kRecord:
      return num_results >= 2;  // the tape is the last
    case InstructionKind::kVjp:
      return num_operands >= 1 && num_results >= 1;
    case InstructionKind::kAlias:
    case InstructionKind::kCopy:
      return num_operands == 1 && num_results == 1;
    case InstructionKind::kOutput:
      return num_operands == 1;
    case InstructionKind::kUpdate:
      return num_operands >= 1;
    default:
      return true;
  }
}

absl::Status Interpreter::RunOne(const Instruction& instruction) {
  if (!IsComplete(instruction)) {
    return Refuse(instruction, "it has not the operands and results of its kind");
  }
  switch (instruction.kind) {
    case InstructionKind::kFeed:
      return RunFeed(instruction);
    case InstructionKind::kCall:
    case InstructionKind::kRecord:
      return RunCall(instruction);
    case InstructionKind::kVjp:
      return RunVjp(instruction);
    case InstructionKind::kAlias:
      return RunAlias(instruction);
    case InstructionKind::kCopy:
      return RunCopy(instruction);
    case InstructionKind::kAccumulate:
      return RunAccumulate(instruction);
    case InstructionKind::kUpdate:
      return RunUpdate(instruction);
    case InstructionKind::kStart:
      return RunStart(instruction);
    case InstructionKind::kWait:
    case InstructionKind::kFree:
      return absl::OkStatus();  // lifetimes.cc
    case InstructionKind::kFor:
      return RunFor(instruction);
    case InstructionKind::kOutput:
      return RunOutput(instruction);
  }
  return NotProven(instruction, "the checker does not know this kind of instruction");
}

absl::StatusOr<const ValueState*> Interpreter::Read(const Instruction& instruction, ValueId id) {
  RETURN_IF_ERROR(CheckComplete(instruction, id));
  RETURN_IF_ERROR(CheckAtHome(instruction, id));
  return ReadAnywhere(instruction, id);
}

absl::StatusOr<const ValueState*> Interpreter::ReadAnywhere(const Instruction& instruction,
                                                            ValueId id) {
  RETURN_IF_ERROR(CheckReadable(instruction, id));
  for (LoopState& loop : LoopsAround(state(id).depth)) {
    loop.read.insert(program_.value(id).storage.index);
  }
  return &state(id);
}

absl::Status Interpreter::CheckReadable(const Instruction& instruction, ValueId id) {
  const ValueState& value = state(id);
  const int32_t storage = program_.value(id).storage.index;
  if (!value.is_defined) {
    return Refuse(instruction, absl::StrCat("%", NameOf(id), " is read before it is defined"));
  }
  if (value.version != storage_versions_[storage]) {
    return Refuse(instruction,
                  absl::StrCat("%", NameOf(id), " is read after its memory was written ",
                               "through another name"));
  }
  if (written_buffers_.contains(storage)) {
    return Refuse(instruction, absl::StrCat("%", NameOf(id), " is read after the step has written ",
                                            "its buffer"));
  }
  if (!value.part_of_sum.empty()) {
    return Refuse(instruction, absl::StrCat("%", NameOf(id),
                                            " is a part of what is a partial sum over the same ",
                                            "axes, and may only be added to"));
  }
  const Account account = program_.value(id).account;
  const bool is_far = account == Account::kPinnedHost || account == Account::kDisk;
  if (is_far && instruction.kind != InstructionKind::kCopy) {
    return Refuse(instruction,
                  absl::StrCat("%", NameOf(id), " lies in ", std::string(AccountName(account)),
                               " memory, from which it must be copied first"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<const ValueState*>> Interpreter::ReadOperands(
    const Instruction& instruction) {
  std::vector<const ValueState*> operands;
  for (ValueId id : OperandsOf(instruction)) {
    ASSIGN_OR_RETURN(const ValueState* operand, Read(instruction, id));
    operands.push_back(operand);
  }
  return operands;
}

absl::Status Interpreter::CheckType(const Instruction& instruction, ValueId id,
                                    ValueState& derived) const {
  const ProgramValue& value = program_.value(id);
  const PlacedDims& stated = StatedDims(id);
  if (stated != derived.dims) {
    return Refuse(instruction, absl::StrCat("%", value.name, " is stated as ", ToText(stated),
                                            ", but its operands give ", ToText(derived.dims)));
  }
  AxisList partial = Nontrivial(program_.mesh, value.partial.axes);
  if (derived.any_partial) {
    derived.partial = partial;
    derived.any_partial = false;
  } else {
    // Outside of the loop over micro-steps their sum is complete, whatever the label says.
    partial = Minus(partial, InactiveLoops());
    const bool same_kind = partial.empty() || value.partial.reduction == derived.reduction;
    if (partial != derived.partial || !same_kind) {
      return Refuse(instruction, absl::StrCat("%", value.name, " is stated as partial over [",
                                              AxisListName(partial), "], but its operands give [",
                                              AxisListName(derived.partial), "]"));
    }
  }
  return absl::OkStatus();
}

absl::Status Interpreter::CheckStated(const Instruction& instruction, ValueId id,
                                      ValueState& derived) const {
  RETURN_IF_ERROR(CheckType(instruction, id, derived));
  const ProgramValue& value = program_.value(id);
  const PlacedDims& stated = derived.dims;
  const AxisList used = Plus(ShardAxes(stated), derived.partial);
  if (used.size() != ShardAxes(stated).size() + derived.partial.size()) {
    return Refuse(instruction, absl::StrCat("%", value.name, " uses a mesh axis twice"));
  }
  for (Axis axis : InactiveLoops()) {
    if (!Holds(ShardAxes(stated), axis)) continue;
    return Refuse(instruction,
                  absl::StrCat("%", value.name, " is split over ", std::string(AxisName(axis)),
                               " outside of the loop over it"));
  }
  return absl::OkStatus();
}

absl::Status Interpreter::Define(const Instruction& instruction, ValueId id, ValueState derived) {
  const ProgramValue& value = program_.value(id);
  RETURN_IF_ERROR(CheckStated(instruction, id, derived));
  if (derived.meaning.shape != LogicalShape(derived.dims)) {
    return Refuse(instruction,
                  absl::StrCat("%", value.name, " has another shape than what it means"));
  }
  RETURN_IF_ERROR(CheckMemory(instruction, id));
  derived.is_defined = true;
  derived.depth = depth();
  derived.parent = {};
  derived.step = {};  // a copy of a view is none
  derived.version = ++storage_versions_[value.storage.index];
  storage_owner_[value.storage.index] = id.index;
  state(id) = std::move(derived);
  ++num_values_;
  return absl::OkStatus();
}

// A result that is no alias: a storage of its own, dense, of the sizes that the placement gives.
absl::Status Interpreter::CheckMemory(const Instruction& instruction, ValueId id) {
  const ProgramValue& value = program_.value(id);
  const int32_t owner = storage_owner_[value.storage.index];
  if (owner >= 0 && owner != id.index) {
    return Refuse(instruction,
                  absl::StrCat("%", value.name, " shares the memory of %",
                               program_.values[owner].name, ", of which it is no view"));
  }
  const std::vector<int64_t> sizes = program_.LocalSizes(value);
  const std::vector<int64_t> strides = program_.LocalStrides(value);
  const PlacedDims& dims = StatedDims(id);
  std::vector<std::pair<int64_t, int64_t>> by_stride;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] != LocalSize(dims[i])) {
      return Refuse(instruction, absl::StrCat("%", value.name, " has ", sizes[i],
                                              " elements on a rank in dimension ", i,
                                              ", but its layout gives ", LocalSize(dims[i])));
    }
    if (sizes[i] != 1) by_stride.emplace_back(strides[i], sizes[i]);
  }
  std::ranges::sort(by_stride);
  // Of what has no elements, no stride says anything.
  if (std::ranges::count(sizes, 0) > 0) by_stride.clear();
  int64_t expected = 1;
  for (const auto& [stride, size] : by_stride) {
    if (stride != expected) {
      return Refuse(instruction,
                    absl::StrCat("%", value.name, " has strides with gaps or overlaps"));
    }
    expected *= size;
  }
  if (value.offset == LinearExpr{}) return absl::OkStatus();
  return Refuse(instruction, absl::StrCat("%", value.name, " has an offset, but is no view"));
}

// The data of all ranks and micro-steps make up one input.
absl::Status Interpreter::RunFeed(const Instruction& instruction) {
  const ValueId id = instruction.results[0];
  ValueState fed;
  fed.dims = StatedDims(id);
  if (Holds(ShardAxes(fed.dims), Axis::kTile)) {
    return Refuse(instruction, "a rank is fed with all of its data, not with tiles of it");
  }
  const Shape shape = LogicalShape(fed.dims);
  fed.meaning = table_.Node(
      absl::StrCat("feed ", instruction.op, " ", std::string(DTypeName(program_.value(id).dtype))),
      {}, shape);
  ASSIGN_OR_RETURN(const int64_t pad, IntAttribute(instruction, "pad"));
  for (const PadKey& key : PadKeys(fed.dims)) {
    fed.pads[key] = PadState::Constant(static_cast<double>(pad));
  }
  return Define(instruction, id, std::move(fed));
}

absl::Status Interpreter::RunCopy(const Instruction& instruction) {
  ASSIGN_OR_RETURN(const std::vector<const ValueState*> operands, ReadOperands(instruction));
  ValueState copy = *operands[0];
  const DType from = program_.value(OperandsOf(instruction)[0]).dtype;
  const DType to = program_.value(instruction.results[0]).dtype;
  if (from != to) return NotProven(instruction, "a copy that changes the dtype");
  return Define(instruction, instruction.results[0], std::move(copy));
}

AxisList Interpreter::InactiveLoops() const {
  AxisList axes(kLoopAxes.begin(), kLoopAxes.end());
  for (const LoopState& loop : loops_) axes = Minus(axes, {loop.axis});
  return axes;
}

// Micro-steps are outermost; tiles may be within one.
absl::Status Interpreter::CheckLoop(const Instruction& instruction, Axis* axis) const {
  const std::optional<Axis> named = AxisFromName(instruction.op);
  const bool is_loop = named && Holds(InactiveLoops(), *named);
  if (!is_loop || (*named == Axis::kAccum && depth() > 0)) {
    return Refuse(instruction,
                  "a loop must be the one over the micro-steps of accum, or over tile");
  }
  *axis = *named;
  ASSIGN_OR_RETURN(const int64_t count, IntAttribute(instruction, "count"));
  if (count == program_.mesh.size(*axis)) return absl::OkStatus();
  return Refuse(instruction, absl::StrCat("a loop over ", instruction.op, " runs ",
                                          program_.mesh.size(*axis), " times"));
}

// The body runs once for each member of the loop's axis. What it adds to values from outside is,
// over all iterations, the whole of what is a partial sum over the axis in one.
absl::Status Interpreter::RunFor(const Instruction& instruction) {
  LoopState state;
  RETURN_IF_ERROR(CheckLoop(instruction, &state.axis));
  loops_.push_back(std::move(state));
  RETURN_IF_ERROR(RunBody(instruction.body));
  const LoopState loop = std::move(loops_.back());
  loops_.pop_back();
  for (int32_t storage : loop.written) {
    if (loop.read.contains(storage)) {
      return Refuse(instruction, absl::StrCat("%", program_.values[storage_owner_[storage]].name,
                                              " is added to in the loop and also read in it"));
    }
  }
  for (size_t i = 0; i < states_.size(); ++i) {
    const bool added = loop.written.contains(program_.values[i].storage.index);
    if (added) states_[i].partial = Minus(states_[i].partial, {loop.axis});
  }
  return absl::OkStatus();
}

absl::Status Interpreter::RunOutput(const Instruction& instruction) {
  ASSIGN_OR_RETURN(const std::vector<const ValueState*> operands, ReadOperands(instruction));
  const ValueState& value = *operands[0];
  const AxisList pending = Plus(value.partial, ShardAxes(value.dims));
  if (!pending.empty()) {
    return Refuse(instruction,
                  absl::StrCat("the host reads what is still spread over ", AxisListName(pending)));
  }
  const std::string key = absl::StrCat(section_, "/output/", instruction.op);
  if (depth() > 0 || !results_.try_emplace(key, value.meaning).second) {
    return Refuse(instruction, "an output is written once, outside of loops");
  }
  return absl::OkStatus();
}

}  // namespace autosp::checker
