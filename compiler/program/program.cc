#include "compiler/program/program.h"

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace autosp {

std::string_view AccountName(Account account) {
  switch (account) {
    case Account::kDevice:
      return "device";
    case Account::kPinnedHost:
      return "pinned_host";
    case Account::kCommunication:
      return "communication";
    case Account::kDisk:
      return "disk";
  }
  return "?";
}

std::string_view InstructionKindName(InstructionKind kind) {
  switch (kind) {
    case InstructionKind::kFeed:
      return "feed";
    case InstructionKind::kCall:
      return "call";
    case InstructionKind::kRecord:
      return "record";
    case InstructionKind::kVjp:
      return "vjp";
    case InstructionKind::kAlias:
      return "alias";
    case InstructionKind::kCopy:
      return "copy";
    case InstructionKind::kAccumulate:
      return "accumulate";
    case InstructionKind::kUpdate:
      return "update";
    case InstructionKind::kStart:
      return "start";
    case InstructionKind::kWait:
      return "wait";
    case InstructionKind::kFree:
      return "free";
    case InstructionKind::kFor:
      return "for";
    case InstructionKind::kOutput:
      return "output";
  }
  return "?";
}

std::string_view PhaseName(Phase phase) {
  switch (phase) {
    case Phase::kForward:
      return "forward";
    case Phase::kBackward:
      return "backward";
    case Phase::kReduce:
      return "reduce";
    case Phase::kOptimizer:
      return "optimizer";
  }
  return "?";
}

const Section* Program::FindSection(std::string_view name) const {
  for (const Section& section : sections) {
    if (section.name == name) return &section;
  }
  return nullptr;
}

std::vector<const Persistent*> Program::WrittenBuffers() const {
  std::vector<const Persistent*> written;
  const Section* step = FindSection("step");
  if (step == nullptr) return written;
  for (const Instruction& instruction : step->body) {
    if (instruction.kind != InstructionKind::kUpdate || instruction.op != kWriteBuffer) continue;
    const std::vector<ValueId> operands = OperandsOf(instruction);
    if (operands.empty()) continue;
    for (const Persistent& each : persistents) {
      const bool is_buffer = each.kind == PersistentKind::kBuffer && each.value == operands[0];
      if (is_buffer) written.push_back(&each);
    }
  }
  return written;
}

int64_t Program::PaddedSize(const DimFactor& factor) const {
  const auto round_up = [](int64_t size, int64_t step) { return (size + step - 1) / step * step; };
  if (!factor.factor.valid()) return round_up(factor.size, mesh.size(factor.axes));
  const Factor& whole = factors[factor.factor.index];
  const bool is_zigzag = whole.layout == Layout::kZigzag && mesh.ring > 1 && !factor.axes.empty();
  // Both blocks of a ring member, cut for each ulysses member, have an even length.
  const int64_t size = is_zigzag ? round_up(whole.size, 2 * mesh.sp()) : whole.size;
  return round_up(size, mesh.size(factor.axes));
}

int64_t Program::LocalSize(const DimFactor& factor) const {
  const int64_t padded = PaddedSize(factor);
  return factor.padded ? padded : padded / mesh.size(factor.axes);
}

int64_t Program::LocalSize(const ProgramDim& dim) const {
  int64_t size = 1;
  for (const DimFactor& factor : dim) size *= LocalSize(factor);
  return size;
}

std::vector<int64_t> Program::LocalSizes(const ProgramValue& value) const {
  std::vector<int64_t> sizes;
  for (const ProgramDim& dim : value.dims) sizes.push_back(LocalSize(dim));
  return sizes;
}

std::vector<int64_t> Program::LocalStrides(const ProgramValue& value) const {
  return value.strides.empty() ? ContiguousStrides(LocalSizes(value)) : value.strides;
}

int64_t Program::LocalNumel(const ProgramValue& value) const {
  int64_t numel = 1;
  for (const ProgramDim& dim : value.dims) numel *= LocalSize(dim);
  return numel;
}

int64_t Program::LocalBytes(const ProgramValue& value) const {
  return value.is_tape ? 0 : LocalNumel(value) * SizeOf(value.dtype);
}

ValueId Program::AddValue(ProgramValue value) {
  value.storage = StorageId{num_storages++};
  values.push_back(std::move(value));
  return ValueId{static_cast<int32_t>(values.size()) - 1};
}

ValueId Program::AddAlias(ProgramValue value, ValueId of) {
  value.storage = values[of.index].storage;
  value.account = values[of.index].account;
  values.push_back(std::move(value));
  return ValueId{static_cast<int32_t>(values.size()) - 1};
}

namespace {

template <typename T>
absl::StatusOr<T> Attribute(const Instruction& instruction, std::string_view key,
                            std::string_view type) {
  const auto found = instruction.attributes.find(key);
  const T* value = found == instruction.attributes.end() ? nullptr : std::get_if<T>(&found->second);
  if (value != nullptr) return *value;
  return InvalidArgument(std::string(InstructionKindName(instruction.kind)), " ", instruction.op,
                         ": attribute ", std::string(key), " must be ", std::string(type));
}

}  // namespace

absl::StatusOr<int64_t> IntAttribute(const Instruction& instruction, std::string_view key) {
  ASSIGN_OR_RETURN(const SymInt value, Attribute<SymInt>(instruction, key, "an integer"));
  return value.value;
}

absl::StatusOr<double> FloatAttribute(const Instruction& instruction, std::string_view key) {
  const auto found = instruction.attributes.find(key);
  if (found != instruction.attributes.end()) {
    if (const auto* value = std::get_if<SymInt>(&found->second)) {
      return static_cast<double>(value->value);
    }
  }
  return Attribute<double>(instruction, key, "a number");
}

absl::StatusOr<std::string> StringAttribute(const Instruction& instruction, std::string_view key) {
  return Attribute<std::string>(instruction, key, "a string");
}

absl::StatusOr<AxisList> AxesAttribute(const Instruction& instruction) {
  ASSIGN_OR_RETURN(const std::string text, StringAttribute(instruction, "axes"));
  AxisList axes;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find('+', begin), text.size());
    const std::string name = text.substr(begin, end - begin);
    const std::optional<Axis> axis = AxisFromName(name);
    if (!axis) return InvalidArgument("axes: '", name, "' is not one of accum, dp, ring, ulysses");
    axes.push_back(*axis);
    begin = end + 1;
  }
  return axes;
}

ValueList ValuesAttribute(const Instruction& instruction, std::string_view key) {
  const auto found = instruction.attributes.find(key);
  if (found == instruction.attributes.end()) return {};
  const auto* values = std::get_if<ValueList>(&found->second);
  return values ? *values : ValueList{};
}

std::vector<int64_t> IntsAttribute(const Instruction& instruction, std::string_view key) {
  std::vector<int64_t> result;
  const auto found = instruction.attributes.find(key);
  if (found == instruction.attributes.end()) return result;
  if (const auto* list = std::get_if<IntList>(&found->second)) {
    for (const SymInt& value : *list) result.push_back(value.value);
  }
  return result;
}

std::vector<ValueId> OperandsOf(const Instruction& instruction) {
  std::vector<ValueId> operands;
  for (const Argument& argument : instruction.args) {
    ForEachValue(argument, [&](ValueId id) { operands.push_back(id); });
  }
  return operands;
}

std::vector<ValueId> ReadsOf(const Instruction& instruction) {
  std::vector<ValueId> reads = OperandsOf(instruction);
  for (const auto& [key, argument] : instruction.attributes) {
    // `saves` only names what a later vjp will read.
    if (key == "saves") continue;
    ForEachValue(argument, [&](ValueId id) { reads.push_back(id); });
  }
  return reads;
}

std::vector<ValueId> AllReadsOf(const Instruction& instruction) {
  std::vector<ValueId> reads = ReadsOf(instruction);
  for (const Instruction& inner : instruction.body) {
    const std::vector<ValueId> more = AllReadsOf(inner);
    reads.insert(reads.end(), more.begin(), more.end());
  }
  return reads;
}

void ReplaceOperands(const std::map<ValueId, ValueId>& replacements, Instruction& instruction) {
  const auto replace = [&](ValueId& id) {
    const auto found = replacements.find(id);
    if (found != replacements.end()) id = found->second;
  };
  ForEachValue(instruction, replace);
}

void ReplaceReads(Program& program, const std::map<ValueId, ValueId>& replacements,
                  Instruction& instruction) {
  ReplaceOperands(replacements, instruction);
  if (instruction.kind == InstructionKind::kAlias) {
    program.value(instruction.results[0]).storage =
        program.value(OperandsOf(instruction)[0]).storage;
  }
  for (Instruction& inner : instruction.body) ReplaceReads(program, replacements, inner);
}

Instruction CloneInstruction(Program& program, const Instruction& instruction,
                             std::string_view suffix, std::map<ValueId, ValueId>& renamed) {
  Instruction clone = instruction;
  ReplaceOperands(renamed, clone);
  for (ValueId& result : clone.results) {
    ProgramValue value = program.value(result);
    value.name = absl::StrCat(value.name, std::string(suffix));
    const ValueId again = clone.kind == InstructionKind::kAlias
                              ? program.AddAlias(std::move(value), OperandsOf(clone)[0])
                              : program.AddValue(std::move(value));
    renamed[result] = again;
    result = again;
  }
  ReplaceOperands(renamed, clone);  // a tape may save a result
  clone.body.clear();
  for (const Instruction& inner : instruction.body) {
    clone.body.push_back(CloneInstruction(program, inner, suffix, renamed));
  }
  return clone;
}

void DropTape(Instruction& record) {
  record.kind = InstructionKind::kCall;
  record.results.pop_back();
  for (const char* key : {"diff", "saves", "opaque"}) record.attributes.erase(key);
}

std::string ProgramDigest(const Program& program) { return Sha256Hex(PrintProgram(program)); }

}  // namespace autosp
