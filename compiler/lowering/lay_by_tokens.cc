#include "compiler/lowering/lay_by_tokens.h"

#include <map>
#include <set>
#include <string_view>
#include <vector>

namespace autosp {
namespace {

constexpr std::string_view kForward = "autosp.sdpa";
constexpr std::string_view kBackward = "autosp.sdpa_backward";

// Of one section, loops included.
class Uses {
 public:
  Uses(const Program& program, std::vector<Instruction>& body) : program_(program) { Note(body); }

  const std::vector<Instruction*>& ReadersOf(ValueId id) const {
    static const auto& kNone = *new std::vector<Instruction*>;
    const auto found = readers_.find(id);
    return found == readers_.end() ? kNone : found->second;
  }
  bool IsWritten(ValueId id) const { return written_.contains(program_.value(id).storage); }

 private:
  void Note(std::vector<Instruction>& body) {
    for (Instruction& instruction : body) {
      Note(instruction.body);
      if (instruction.kind == InstructionKind::kFree) continue;
      for (ValueId id : OperandsOf(instruction)) readers_[id].push_back(&instruction);
      const bool writes = instruction.kind == InstructionKind::kUpdate ||
                          instruction.kind == InstructionKind::kAccumulate;
      if (!writes) continue;
      for (ValueId id : OperandsOf(instruction)) written_.insert(program_.value(id).storage);
    }
  }

  const Program& program_;
  std::map<ValueId, std::vector<Instruction*>> readers_;
  std::set<StorageId> written_;  // or read by what writes in place
};

class OutputLayout {
 public:
  OutputLayout(Program& program, std::vector<Instruction>& body)
      : program_(program), uses_(program, body) {}

  void Visit(std::vector<Instruction>& body) {
    for (Instruction& instruction : body) {
      Visit(instruction.body);
      if (instruction.op == kForward) LayByTokens(instruction);
    }
  }

  // What was copied lies where the output does.
  void MoveValues() {
    for (ProgramValue& value : program_.values) {
      const auto found = moved_.find(value.storage);
      if (found != moved_.end()) value.storage = found->second;
    }
  }

 private:
  static bool IsSwap(const Instruction& instruction) {
    return instruction.kind == InstructionKind::kAlias &&
           instruction.op == "aten.permute.default" &&
           instruction.args[1] == Argument(IntList{SymInt(0), SymInt(2), SymInt(1), SymInt(3)});
  }

  bool StaysOnDevice(const Instruction& copy) const {
    const ProgramValue& from = program_.value(OperandsOf(copy)[0]);
    const ProgramValue& to = program_.value(copy.results[0]);
    return copy.kind == InstructionKind::kCopy && to.account == from.account &&
           to.dtype == from.dtype && to.strides.empty() && !uses_.IsWritten(copy.results[0]);
  }

  void LayByTokens(const Instruction& call) {
    const ValueId out = call.results[0];
    std::vector<Instruction*> swaps;
    std::vector<Instruction*> copies;
    for (Instruction* reader : uses_.ReadersOf(out)) {
      if (reader->op == kBackward || reader->kind == InstructionKind::kCopy) continue;
      if (!IsSwap(*reader)) return;
      swaps.push_back(reader);
      for (Instruction* next : uses_.ReadersOf(reader->results[0])) {
        if (!StaysOnDevice(*next)) return;
        copies.push_back(next);
      }
    }
    program_.value(out).strides = StridesByTokens(program_.LocalSizes(program_.value(out)));
    for (const Instruction* swap : swaps) program_.value(swap->results[0]).strides = {};
    for (Instruction* copy : copies) {
      copy->kind = InstructionKind::kAlias;
      copy->op = "aten.alias.default";
      moved_[program_.value(copy->results[0]).storage] = program_.value(out).storage;
    }
  }

  Program& program_;
  const Uses uses_;
  std::map<StorageId, StorageId> moved_;
};

}  // namespace

std::vector<int64_t> StridesByTokens(const std::vector<int64_t>& sizes) {
  return {sizes[1] * sizes[2] * sizes[3], sizes[3], sizes[1] * sizes[3], 1};
}

void LayOutputsByTokens(Program& program) {
  for (Section& section : program.sections) {
    OutputLayout layout(program, section.body);
    layout.Visit(section.body);
    layout.MoveValues();
  }
}

}  // namespace autosp
