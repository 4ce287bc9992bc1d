// Frees at the wrong time, and writes to what is still needed.
#include <algorithm>
#include <set>

#include "tests/compiler/checker/mutations.h"

namespace autosp {
namespace {

constexpr InstructionKind kFree = InstructionKind::kFree;

std::set<ValueId> Persistents(const Program& program) {
  std::set<ValueId> ids;
  for (const Persistent& persistent : program.persistents) ids.insert(persistent.value);
  return ids;
}

// Before the last instruction that reads what is freed.
std::optional<Program> FreeEarly(const Program& program, const Site& site) {
  if (At(program, site).kind != kFree || site.index == 0) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  const std::vector<ValueId> freed = OperandsOf(At(program, site));
  const auto reads = [&](const Instruction& each) {
    return std::ranges::any_of(ReadsOf(each), [&](ValueId id) {
      return each.kind != kFree && std::ranges::count(freed, id) > 0;
    });
  };
  size_t to = site.index;
  while (to > 0 && !reads(body[to - 1])) --to;
  if (to == 0) return std::nullopt;
  std::rotate(body.begin() + static_cast<std::ptrdiff_t>(to) - 1,
              body.begin() + static_cast<std::ptrdiff_t>(site.index),
              body.begin() + static_cast<std::ptrdiff_t>(site.index) + 1);
  return mutant;
}

std::optional<Program> FreeTwice(const Program& program, const Site& site) {
  if (At(program, site).kind != kFree) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  body.push_back(At(program, site));
  return mutant;
}

std::optional<Program> DropFree(const Program& program, const Site& site) {
  if (At(program, site).kind != kFree) return std::nullopt;
  Program mutant = program;
  std::vector<Instruction>& body = BodyOf(mutant, site);
  body.erase(body.begin() + static_cast<std::ptrdiff_t>(site.index));
  return mutant;
}

std::optional<Program> FreeParameter(const Program& program, const Site& site) {
  if (At(program, site).kind != kFree) return std::nullopt;
  Program mutant = program;
  At(mutant, site).args.emplace_back(program.persistents[0].value);
  return mutant;
}

// Zeroes a value that the derivative at `site` reads.
std::optional<Program> WriteToSaved(const Program& program, const Site& site) {
  if (At(program, site).kind != InstructionKind::kVjp) return std::nullopt;
  const ValueList saved = ValuesAttribute(At(program, site), "saved");
  if (saved.empty()) return std::nullopt;
  Program mutant = program;
  Instruction write;
  write.kind = InstructionKind::kUpdate;
  write.op = "aten.zero_.default";
  write.args = {saved[0]};
  std::vector<Instruction>& body = BodyOf(mutant, site);
  body.insert(body.begin() + static_cast<std::ptrdiff_t>(site.index), write);
  return mutant;
}

// Adds to an operand just before it is read.
std::optional<Program> AddToOperand(const Program& program, const Site& site) {
  const Instruction& call = At(program, site);
  if (call.kind != InstructionKind::kCall || OperandsOf(call).size() < 2) return std::nullopt;
  const ValueId to = OperandsOf(call)[0];
  const ValueId from = OperandsOf(call)[1];
  if (to == from || !SameType(program, to, from)) return std::nullopt;
  Program mutant = program;
  Instruction add;
  add.kind = InstructionKind::kAccumulate;
  add.args = {to, from};
  std::vector<Instruction>& body = BodyOf(mutant, site);
  body.insert(body.begin() + static_cast<std::ptrdiff_t>(site.index), add);
  return mutant;
}

// The optimizer's input is zeroed before, or a parameter within the step.
std::optional<Program> ZeroPersistent(const Program& program, const Site& site) {
  const Instruction& call = At(program, site);
  if (call.kind != InstructionKind::kCall && call.kind != InstructionKind::kUpdate) {
    return std::nullopt;
  }
  const std::set<ValueId> persistents = Persistents(program);
  if (call.op == "aten.zero_.default") return std::nullopt;
  for (ValueId id : OperandsOf(call)) {
    if (!persistents.contains(id)) continue;
    Program mutant = program;
    Instruction write;
    write.kind = InstructionKind::kUpdate;
    write.op = "aten.zero_.default";
    write.args = {id};
    std::vector<Instruction>& body = BodyOf(mutant, site);
    body.insert(body.begin() + static_cast<std::ptrdiff_t>(site.index), write);
    return mutant;
  }
  return std::nullopt;
}

}  // namespace

std::vector<Mutation> LifetimeMutations() {
  return {{"free early", FreeEarly},
          {"free twice", FreeTwice},
          {"drop a free", DropFree},
          {"free a parameter", FreeParameter},
          {"write to a saved value", WriteToSaved},
          {"add to an operand", AddToOperand},
          {"zero what is kept", ZeroPersistent}};
}

}  // namespace autosp
