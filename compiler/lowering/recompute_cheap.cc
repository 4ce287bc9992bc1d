#include "compiler/lowering/recompute_cheap.h"

#include <algorithm>
#include <map>
#include <set>

namespace autosp {
namespace {

bool IsCheap(const Instruction& instruction) {
  static const auto& kCheapOps = *new std::set<std::string, std::less<>>{
      "aten.add.Tensor", "aten.mul.Tensor", "aten.neg.default", "aten.sub.Tensor", "aten.to.dtype"};
  const bool is_call =
      instruction.kind == InstructionKind::kCall || instruction.kind == InstructionKind::kRecord;
  return is_call && kCheapOps.contains(instruction.op);
}

class Recomputation {
 public:
  Recomputation(Program& program, const std::vector<Instruction>& forward,
                std::vector<Instruction>& backward)
      : program_(program), forward_(forward), backward_(backward) {
    for (const Persistent& persistent : program.persistents) {
      persistent_.insert(persistent.value);
    }
    std::set<ValueId> defined;
    for (const Instruction& instruction : forward) {
      defined.insert(instruction.results.begin(), instruction.results.end());
    }
    for (size_t i = 0; i < backward.size(); ++i) {
      for (ValueId id : AllReadsOf(backward[i])) {
        if (!defined.contains(id)) continue;
        first_use_.try_emplace(id, i);
        last_use_[id] = i;
        storage_readers_[program.value(id).storage].insert(id);
      }
    }
  }

  void Run() {
    for (const Instruction& instruction : forward_) {
      if (IsCheap(instruction) && PaysOff(instruction)) {
        makers_[instruction.results[0]] = &instruction;
      }
    }
    std::vector<Instruction> result;
    for (Instruction& instruction : backward_) {
      for (ValueId id : AllReadsOf(instruction)) Make(id, instruction.phase, &result);
      ReplaceReads(program_, remade_, instruction);
      result.push_back(std::move(instruction));
    }
    backward_ = std::move(result);
  }

 private:
  // Read in the backward, under its own name alone, and every operand is there at its first use.
  bool PaysOff(const Instruction& instruction) const {
    const ValueId value = instruction.results[0];
    const auto first = first_use_.find(value);
    if (first == first_use_.end()) return false;
    if (storage_readers_.at(program_.value(value).storage).size() > 1) return false;
    return std::ranges::all_of(OperandsOf(instruction), [&](ValueId operand) {
      if (persistent_.contains(operand) || makers_.contains(operand)) return true;
      const auto last = last_use_.find(operand);
      return last != last_use_.end() && last->second >= first->second;
    });
  }

  void Make(ValueId id, Phase phase, std::vector<Instruction>* body) {
    const auto maker = makers_.find(id);
    if (maker == makers_.end() || remade_.contains(id)) return;
    for (ValueId operand : OperandsOf(*maker->second)) Make(operand, phase, body);
    Instruction call = *maker->second;
    if (call.kind == InstructionKind::kRecord) DropTape(call);
    call.phase = phase;
    body->push_back(CloneInstruction(program_, call, "_again", remade_));
  }

  Program& program_;
  const std::vector<Instruction>& forward_;
  std::vector<Instruction>& backward_;
  std::set<ValueId> persistent_;
  std::map<ValueId, size_t> first_use_;  // in the backward, of forward values
  std::map<ValueId, size_t> last_use_;
  std::map<StorageId, std::set<ValueId>> storage_readers_;
  std::map<ValueId, const Instruction*> makers_;  // what is made again, and how
  std::map<ValueId, ValueId> remade_;
};

}  // namespace

void RecomputeCheap(Program& program, const std::vector<Instruction>& forward,
                    std::vector<Instruction>& backward) {
  Recomputation(program, forward, backward).Run();
}

}  // namespace autosp
