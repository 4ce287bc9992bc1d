#include "compiler/lowering/offload_kept.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

namespace autosp {
namespace {

// Of all instructions of the step, and of the bytes of the largest value.
constexpr size_t kIdlePart = 10;
constexpr size_t kIdlePartOfLayers = 100;
constexpr int64_t kSmallPart = 4;

struct KeptValue {
  ValueId value;
  size_t last_use = 0;   // in the forward
  size_t first_use = 0;  // in the backward
  int64_t bytes = 0;
};

class Offloading {
 public:
  Offloading(Program& program, Offload offload, std::vector<Instruction>& forward,
             std::vector<Instruction>& backward)
      : program_(program),
        idle_part_(offload == Offload::kEveryLayer ? kIdlePartOfLayers : kIdlePart),
        forward_(forward),
        backward_(backward) {}

  int64_t Run() {
    FindKept();
    std::map<size_t, std::vector<KeptValue>> leave;
    std::map<size_t, std::vector<KeptValue>> arrive;
    for (const KeptValue& kept : Chosen()) {
      leave[kept.last_use].push_back(kept);
      arrive[kept.first_use].push_back(kept);
    }
    if (leave.empty()) return 0;
    std::map<ValueId, ValueId> on_host;
    std::vector<Instruction> result;
    for (size_t i = 0; i < forward_.size(); ++i) {
      result.push_back(std::move(forward_[i]));
      for (const KeptValue& kept : leave[i]) {
        on_host[kept.value] = Move(kept.value, kept.value, Account::kPinnedHost, &result);
      }
    }
    std::swap(forward_, result);
    result.clear();
    for (size_t i = 0; i < backward_.size(); ++i) {
      for (const KeptValue& kept : arrive[i]) {
        replaced_[kept.value] = Move(on_host.at(kept.value), kept.value, Account::kDevice, &result);
      }
      for (ValueId id : AllReadsOf(backward_[i])) Follow(id, &result);
      ReplaceReads(program_, replaced_, backward_[i]);
      result.push_back(std::move(backward_[i]));
    }
    backward_ = std::move(result);
    return static_cast<int64_t>(on_host.size());
  }

 private:
  StorageId StorageOf(ValueId id) const { return program_.value(id).storage; }

  void FindKept() {
    for (size_t i = 0; i < forward_.size(); ++i) {
      for (ValueId id : forward_[i].results) {
        if (program_.value(id).is_tape) continue;
        if (forward_[i].kind == InstructionKind::kAlias) {
          aliases_[id] = forward_[i];
        } else {
          kept_[StorageOf(id)] = {
              .value = id, .last_use = i, .bytes = program_.LocalBytes(program_.value(id))};
        }
      }
      for (ValueId id : AllReadsOf(forward_[i])) {
        const auto found = kept_.find(StorageOf(id));
        if (found != kept_.end()) found->second.last_use = i;
      }
    }
    for (size_t i = backward_.size(); i-- > 0;) {
      for (ValueId id : AllReadsOf(backward_[i])) {
        const auto found = kept_.find(StorageOf(id));
        if (found == kept_.end()) continue;
        found->second.first_use = i;
        read_.insert(found->first);
      }
      // What the backward writes stays the value that it writes to.
      if (backward_[i].kind == InstructionKind::kUpdate ||
          backward_[i].kind == InstructionKind::kAccumulate) {
        written_.insert(StorageOf(OperandsOf(backward_[i])[0]));
      }
    }
  }

  std::vector<KeptValue> Chosen() const {
    std::vector<KeptValue> idle;
    int64_t largest = 0;
    for (const auto& [storage, kept] : kept_) {
      const size_t length = forward_.size() - kept.last_use + kept.first_use;
      const bool is_idle = length * idle_part_ >= forward_.size() + backward_.size();
      if (!read_.contains(storage) || written_.contains(storage) || !is_idle) continue;
      idle.push_back(kept);
      largest = std::max(largest, kept.bytes);
    }
    std::erase_if(idle, [&](const KeptValue& kept) { return kept.bytes * kSmallPart < largest; });
    return idle;
  }

  ValueId Move(ValueId from, ValueId like, Account account, std::vector<Instruction>* body) {
    ProgramValue value = program_.value(like);
    const bool leaves = account == Account::kPinnedHost;
    value.name = absl::StrCat(value.name, leaves ? "_host" : "_back");
    value.account = account;
    Instruction copy;
    copy.kind = InstructionKind::kCopy;
    copy.args = {from};
    copy.results = {program_.AddValue(std::move(value))};
    copy.phase = leaves ? Phase::kForward : Phase::kBackward;
    const ValueId result = copy.results[0];
    body->push_back(std::move(copy));
    return result;
  }

  // A view of what was moved is made again, of what came back.
  void Follow(ValueId id, std::vector<Instruction>* body) {
    const auto alias = aliases_.find(id);
    if (alias == aliases_.end() || replaced_.contains(id)) return;
    const ValueId of = OperandsOf(alias->second)[0];
    Follow(of, body);
    if (!replaced_.contains(of)) return;
    Instruction again = CloneInstruction(program_, alias->second, "_back", replaced_);
    again.phase = Phase::kBackward;
    body->push_back(std::move(again));
  }

  Program& program_;
  const size_t idle_part_;
  std::vector<Instruction>& forward_;
  std::vector<Instruction>& backward_;
  std::map<StorageId, KeptValue> kept_;
  std::map<ValueId, Instruction> aliases_;  // of the forward
  std::set<StorageId> read_;                // by the backward
  std::set<StorageId> written_;             // likewise
  std::map<ValueId, ValueId> replaced_;
};

}  // namespace

int64_t OffloadKept(Program& program, Offload offload, std::vector<Instruction>& forward,
                    std::vector<Instruction>& backward) {
  if (offload == Offload::kNone || offload == Offload::kAuto) return 0;
  return Offloading(program, offload, forward, backward).Run();
}

}  // namespace autosp
