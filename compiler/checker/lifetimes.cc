#include "compiler/checker/lifetimes.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp::checker {
namespace {

enum class Life : uint8_t { kUndefined, kLive, kInFlight, kFreed };

// What an instruction writes in place. Updates that are not named here may write to all operands.
std::vector<ValueId> WrittenBy(const Instruction& instruction) {
  static const auto& kNumWritten =
      *new std::map<std::string_view, size_t>{{"aten.copy_.default", 1},
                                              {"autosp.attend_block_", 2},
                                              {"autosp.attend_block_backward_", 3},
                                              {"autosp.cross_entropy_backward_", 1},
                                              {"autosp.matmul_accumulate_", 1}};
  const bool adds = instruction.kind == InstructionKind::kAccumulate;
  if (!adds && instruction.kind != InstructionKind::kUpdate) return {};
  std::vector<ValueId> operands = OperandsOf(instruction);
  const auto found = kNumWritten.find(instruction.op);
  const size_t all = found == kNumWritten.end() ? operands.size() : found->second;
  operands.resize(std::min(operands.size(), adds ? 1 : all));
  return operands;
}

class LifetimeCheck {
 public:
  explicit LifetimeCheck(const Program& program)
      : program_(program), lives_(program.values.size(), Life::kUndefined) {
    for (const Persistent& persistent : program.persistents) {
      lives_[persistent.value.index] = Life::kLive;
      persistent_.insert(persistent.value);
    }
  }

  absl::Status Run(const std::vector<Instruction>& body) {
    std::vector<ValueId> defined;
    for (const Instruction& instruction : body) {
      RETURN_IF_ERROR(RunOne(instruction));
      defined.insert(defined.end(), instruction.results.begin(), instruction.results.end());
    }
    for (ValueId id : defined) {
      if (lives_[id.index] == Life::kFreed) continue;
      const bool in_flight = lives_[id.index] == Life::kInFlight;
      return FailedPrecondition("%", program_.value(id).name,
                                in_flight ? " is started but never waited for" : " is never freed");
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Refuse(const Instruction& instruction, const std::string& why) const {
    return FailedPrecondition(PrintInstruction(program_, instruction), instruction.source.Where(),
                              ": ", why);
  }

  absl::Status RunOne(const Instruction& instruction) {
    for (ValueId id : ReadsOf(instruction)) {
      const bool waits = instruction.kind == InstructionKind::kWait;
      const Life needed = waits ? Life::kInFlight : Life::kLive;
      if (lives_[id.index] == needed) continue;
      const std::string name = absl::StrCat("%", program_.value(id).name);
      switch (lives_[id.index]) {
        case Life::kUndefined:
          return Refuse(instruction, absl::StrCat(name, " is not defined yet"));
        case Life::kInFlight:
          return Refuse(instruction, absl::StrCat(name, " is not waited for yet"));
        case Life::kFreed:
          return Refuse(instruction, absl::StrCat(name, " is freed already"));
        case Life::kLive:
          return Refuse(instruction, absl::StrCat(name, " is not in flight"));
      }
    }
    RETURN_IF_ERROR(CheckWrites(instruction));
    for (ValueId id : instruction.results) {
      if (lives_[id.index] != Life::kUndefined) {
        return Refuse(instruction,
                      absl::StrCat("%", program_.value(id).name, " is defined a second time"));
      }
      lives_[id.index] = Life::kLive;
    }
    switch (instruction.kind) {
      case InstructionKind::kStart:
        return Start(instruction);
      case InstructionKind::kWait:
        return Wait(instruction);
      case InstructionKind::kFree:
        return Free(instruction);
      case InstructionKind::kFor: {
        const std::set<ValueId> outer = std::exchange(loop_values_, LiveValues());
        RETURN_IF_ERROR(Run(instruction.body));
        loop_values_ = outer;
        return absl::OkStatus();
      }
      default:
        return absl::OkStatus();
    }
  }

  std::set<ValueId> LiveValues() const {
    std::set<ValueId> live;
    for (size_t i = 0; i < lives_.size(); ++i) {
      if (lives_[i] == Life::kLive || lives_[i] == Life::kInFlight) {
        live.insert(ValueId{static_cast<int32_t>(i)});
      }
    }
    return live;
  }

  // What a collective reads must stay as it is until the wait.
  absl::Status CheckWrites(const Instruction& instruction) const {
    for (ValueId id : WrittenBy(instruction)) {
      if (!locked_storages_.contains(program_.value(id).storage)) continue;
      return Refuse(instruction, absl::StrCat("%", program_.value(id).name,
                                              " is in use by a collective that is not waited for"));
    }
    return absl::OkStatus();
  }

  // The first result stands for the collective.
  absl::Status Start(const Instruction& instruction) {
    for (ValueId id : instruction.results) lives_[id.index] = Life::kInFlight;
    const std::vector<ValueId> operands = OperandsOf(instruction);
    for (ValueId id : operands) locked_storages_.insert(program_.value(id).storage);
    if (!instruction.results.empty()) operands_[instruction.results[0]] = operands;
    return absl::OkStatus();
  }

  absl::Status Wait(const Instruction& instruction) {
    for (ValueId result : OperandsOf(instruction)) {
      if (loop_values_.contains(result)) {
        return Refuse(instruction, absl::StrCat("%", program_.value(result).name,
                                                " is started outside of the loop"));
      }
      lives_[result.index] = Life::kLive;
      const auto found = operands_.find(result);
      if (found == operands_.end()) continue;
      for (ValueId id : found->second) {
        locked_storages_.erase(locked_storages_.find(program_.value(id).storage));
      }
      operands_.erase(found);
    }
    return absl::OkStatus();
  }

  absl::Status Free(const Instruction& instruction) {
    for (ValueId id : OperandsOf(instruction)) {
      const std::string name = absl::StrCat("%", program_.value(id).name);
      if (persistent_.contains(id)) {
        return Refuse(instruction, absl::StrCat(name, " lives as long as the job"));
      }
      if (loop_values_.contains(id)) {
        return Refuse(instruction, absl::StrCat(name, " is from outside of the loop"));
      }
      if (lives_[id.index] == Life::kFreed) {
        return Refuse(instruction, absl::StrCat(name, " is freed twice"));
      }
      lives_[id.index] = Life::kFreed;
    }
    return absl::OkStatus();
  }

  const Program& program_;
  std::vector<Life> lives_;
  std::set<ValueId> persistent_;
  std::set<ValueId> loop_values_;             // live at the start of the loop around
  std::multiset<StorageId> locked_storages_;  // read by collectives in flight, once for each
  std::map<ValueId, std::vector<ValueId>> operands_;  // of what is in flight, by first result
};

}  // namespace

absl::Status CheckLifetimes(const Program& program) {
  LifetimeCheck check(program);
  for (const Section& section : program.sections) {
    RETURN_IF_ERROR(WithContext(check.Run(section.body), "section ", section.name));
  }
  return absl::OkStatus();
}

}  // namespace autosp::checker
