// What a step leaves in buffers: nothing, a part of a sum, the value of another, or too early.
#include <algorithm>

#include "tests/compiler/checker/mutations.h"

namespace autosp {
namespace {

bool IsWrite(const Program& program, const Site& site) {
  const Instruction& instruction = At(program, site);
  return instruction.kind == InstructionKind::kUpdate && instruction.op == kWriteBuffer;
}

Instruction WriteOf(ValueId buffer, ValueId value) {
  Instruction write;
  write.kind = InstructionKind::kUpdate;
  write.op = kWriteBuffer;
  write.args = {buffer, value, false};
  return write;
}

void Insert(Program& program, const Site& site, const Instruction& instruction) {
  std::vector<Instruction>& body = BodyOf(program, site);
  body.insert(body.begin() + static_cast<std::ptrdiff_t>(site.index), instruction);
}

std::optional<Program> LoseWrite(const Program& program, const Site& site) {
  if (!IsWrite(program, site)) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  body.erase(body.begin() + static_cast<std::ptrdiff_t>(site.index));
  return mutant;
}

std::optional<Program> WriteTwice(const Program& program, const Site& site) {
  if (!IsWrite(program, site)) return std::nullopt;
  Program mutant = program;
  Insert(mutant, site, At(program, site));
  return mutant;
}

// Ranks keep what each of them has added up.
std::optional<Program> WritePart(const Program& program, const Site& site) {
  const Instruction& reduce = At(program, site);
  const bool reduces = reduce.kind == InstructionKind::kStart && reduce.op == "all_reduce";
  if (!reduces) return std::nullopt;
  const ValueId part = OperandsOf(reduce)[0];
  Program mutant = program;
  for (const Persistent* buffer : program.WrittenBuffers()) {
    const ProgramValue& kept = program.value(buffer->value);
    if (kept.dtype != program.value(part).dtype || kept.dims != program.value(part).dims) continue;
    Insert(mutant, site, WriteOf(buffer->value, part));
    return mutant;
  }
  return std::nullopt;
}

// A buffer gets what another should have.
std::optional<Program> WriteOther(const Program& program, const Site& site) {
  if (!IsWrite(program, site)) return std::nullopt;
  Program mutant = program;
  const std::vector<ValueId> own = OperandsOf(At(program, site));
  for (const Persistent* buffer : program.WrittenBuffers()) {
    const bool is_other = buffer->value != own[0] && SameType(program, buffer->value, own[0]);
    if (!is_other) continue;
    At(mutant, site).args[0] = buffer->value;
    return mutant;
  }
  return std::nullopt;
}

// What reads a buffer comes after a write to it.
std::optional<Program> WriteTooEarly(const Program& program, const Site& site) {
  const Instruction& reader = At(program, site);
  if (reader.kind != InstructionKind::kCall) return std::nullopt;
  for (const Persistent* buffer : program.WrittenBuffers()) {
    const std::vector<ValueId> operands = OperandsOf(reader);
    if (std::ranges::count(operands, buffer->value) == 0) continue;
    for (const Persistent* other : program.WrittenBuffers()) {
      if (other == buffer || !SameType(program, other->value, buffer->value)) continue;
      Program mutant = program;
      Insert(mutant, site, WriteOf(buffer->value, other->value));
      return mutant;
    }
  }
  return std::nullopt;
}

// Validation leaves the statistics of its own batch behind.
std::optional<Program> WriteInValidation(const Program& program, const Site& site) {
  const bool is_last = program.sections[site.section].name == "eval" && site.loops.empty() &&
                       site.index + 1 == program.sections[site.section].body.size();
  if (!is_last) return std::nullopt;
  for (const Persistent* buffer : program.WrittenBuffers()) {
    for (const Persistent& other : program.persistents) {
      const bool fits =
          other.value != buffer->value && SameType(program, other.value, buffer->value);
      if (!fits) continue;
      Program mutant = program;
      BodyOf(mutant, site).push_back(WriteOf(buffer->value, other.value));
      return mutant;
    }
  }
  return std::nullopt;
}

}  // namespace

std::vector<Mutation> BufferMutations() {
  return {{"lose what is written to a buffer", LoseWrite},
          {"write a buffer twice", WriteTwice},
          {"write a part of a sum to a buffer", WritePart},
          {"write another buffer", WriteOther},
          {"read a buffer after a write", WriteTooEarly},
          {"write a buffer in validation", WriteInValidation}};
}

}  // namespace autosp
