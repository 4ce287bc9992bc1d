#include "compiler/checker/lifetimes.h"

#include <map>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp::checker {
namespace {

enum class Life : uint8_t { kUndefined, kLive, kInFlight, kFreed };

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
    return FailedPrecondition(PrintInstruction(program_, instruction), ": ", why);
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
    const bool writes = instruction.kind == InstructionKind::kAccumulate ||
                        instruction.kind == InstructionKind::kUpdate;
    if (!writes) return absl::OkStatus();
    for (ValueId id : OperandsOf(instruction)) {
      if (!locked_.contains(program_.value(id).storage)) continue;
      return Refuse(instruction, absl::StrCat("%", program_.value(id).name,
                                              " is in use by a collective that is not waited for"));
    }
    return absl::OkStatus();
  }

  absl::Status Start(const Instruction& instruction) {
    std::vector<StorageId> storages;
    for (ValueId id : OperandsOf(instruction)) {
      storages.push_back(program_.value(id).storage);
      ++locked_[storages.back()];
    }
    for (ValueId id : instruction.results) {
      lives_[id.index] = Life::kInFlight;
      in_flight_[id] = instruction.results;
      held_[id] = storages;
      storages.clear();  // the first result holds them all
    }
    return absl::OkStatus();
  }

  absl::Status Wait(const Instruction& instruction) {
    for (ValueId id : OperandsOf(instruction)) {
      lives_[id.index] = Life::kLive;
      for (StorageId storage : held_[id]) {
        if (--locked_[storage] == 0) locked_.erase(storage);
      }
      held_.erase(id);
      in_flight_.erase(id);
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
      if (locked_.contains(program_.value(id).storage)) {
        return Refuse(instruction,
                      absl::StrCat(name, " is in use by a collective that is not ", "waited for"));
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
  std::set<ValueId> loop_values_;    // live at the start of the loop around
  std::map<StorageId, int> locked_;  // read by collectives in flight
  std::map<ValueId, std::vector<ValueId>> in_flight_;
  std::map<ValueId, std::vector<StorageId>> held_;
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
