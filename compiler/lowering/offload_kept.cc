#include "compiler/lowering/offload_kept.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compiler/lowering/block_attention.h"

namespace autosp {
namespace {

// Of all instructions of the step, and of the bytes of the largest value.
constexpr size_t kIdlePart = 10;
constexpr size_t kIdlePartOfLayers = 100;
constexpr int64_t kSmallPart = 4;

struct KeptValue {
  ValueId value;
  size_t last_use = 0;            // in the forward
  std::vector<size_t> uses = {};  // in the backward, in order
  int64_t bytes = 0;
};

class Offloading {
 public:
  Offloading(Program& program, Offload offload, std::vector<Instruction>& forward,
             std::vector<Instruction>& backward)
      : program_(program),
        offload_(offload),
        idle_part_(offload == Offload::kEveryLayer ? kIdlePartOfLayers : kIdlePart),
        forward_(forward),
        backward_(backward) {}

  int64_t Run() {
    FindKept();
    FindAttentions();
    std::map<size_t, std::vector<KeptValue>> leave;
    std::map<size_t, std::vector<KeptValue>> arrive;
    for (const KeptValue& kept : Chosen()) {
      leave[kept.last_use].push_back(kept);
      for (size_t use : ArrivalsOf(kept)) arrive[use].push_back(kept);
    }
    if (leave.empty()) return 0;
    std::map<ValueId, ValueId> on_host;
    std::vector<Instruction> result;
    for (size_t i = 0; i < forward_.size(); ++i) {
      result.push_back(std::move(forward_[i]));
      for (const KeptValue& kept : leave[i]) {
        on_host[kept.value] = Move(kept.value, kept.value, Account::kPinnedHost, "_host", &result);
      }
    }
    std::swap(forward_, result);
    result.clear();
    for (size_t i = 0; i < backward_.size(); ++i) {
      for (const KeptValue& kept : arrive[i]) {
        BringBack(kept.value, on_host.at(kept.value), &result);
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
    for (size_t i = 0; i < backward_.size(); ++i) {
      for (ValueId id : AllReadsOf(backward_[i])) {
        const auto found = kept_.find(StorageOf(id));
        if (found != kept_.end()) found->second.uses.push_back(i);
      }
      NoteWrites(backward_[i]);
    }
  }

  // What the backward writes, in loops too, stays the value that it writes to.
  void NoteWrites(const Instruction& instruction) {
    const bool writes = instruction.kind == InstructionKind::kUpdate ||
                        instruction.kind == InstructionKind::kAccumulate;
    if (writes) written_.insert(StorageOf(OperandsOf(instruction)[0]));
    for (const Instruction& inner : instruction.body) NoteWrites(inner);
  }

  std::vector<KeptValue> Chosen() const {
    std::vector<KeptValue> idle;
    int64_t largest = 0;
    for (const auto& [storage, kept] : kept_) {
      if (kept.uses.empty() || written_.contains(storage)) continue;
      const size_t length = forward_.size() - kept.last_use + kept.uses.front();
      const bool is_idle = length * idle_part_ >= forward_.size() + backward_.size();
      if (!is_idle && ArrivalsOf(kept).size() == 1) continue;
      idle.push_back(kept);
      largest = std::max(largest, kept.bytes);
    }
    std::erase_if(idle, [&](const KeptValue& kept) { return kept.bytes * kSmallPart < largest; });
    return idle;
  }

  void FindAttentions() {
    for (size_t i = 0; i < backward_.size(); ++i) {
      if (IsAttentionDerivative(backward_[i])) attentions_.insert(i);
    }
  }

  // Before the first use; and where every byte counts, once more after the derivative of an
  // attention, at whose peak it would only wait.
  std::vector<size_t> ArrivalsOf(const KeptValue& kept) const {
    std::vector<size_t> arrivals = {kept.uses.front()};
    if (offload_ != Offload::kEveryLayer) return arrivals;
    for (size_t i = 1; i < kept.uses.size(); ++i) {
      const auto between = attentions_.upper_bound(kept.uses[i - 1]);
      if (between != attentions_.end() && *between < kept.uses[i]) arrivals.push_back(kept.uses[i]);
    }
    return arrivals;
  }

  void BringBack(ValueId value, ValueId on_host, std::vector<Instruction>* body) {
    // Views of what was here before are made anew.
    std::erase_if(replaced_,
                  [&](const auto& each) { return StorageOf(each.first) == StorageOf(value); });
    replaced_[value] = Move(on_host, value, Account::kDevice, ArrivalSuffix(value), body);
  }

  std::string ArrivalSuffix(ValueId id) {
    const int64_t count = ++num_arrivals_[id];
    return count == 1 ? "_back" : absl::StrCat("_back", count);
  }

  ValueId Move(ValueId from, ValueId like, Account account, const std::string& suffix,
               std::vector<Instruction>* body) {
    ProgramValue value = program_.value(like);
    const bool leaves = account == Account::kPinnedHost;
    value.name += suffix;
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
    Instruction again = CloneInstruction(program_, alias->second, ArrivalSuffix(id), replaced_);
    again.phase = Phase::kBackward;
    body->push_back(std::move(again));
  }

  Program& program_;
  const Offload offload_;
  const size_t idle_part_;
  std::vector<Instruction>& forward_;
  std::vector<Instruction>& backward_;
  std::map<StorageId, KeptValue> kept_;
  std::map<ValueId, Instruction> aliases_;  // of the forward
  std::set<StorageId> written_;             // by the backward
  std::set<size_t> attentions_;             // in the backward
  std::map<ValueId, int64_t> num_arrivals_;
  std::map<ValueId, ValueId> replaced_;
};

}  // namespace

int64_t OffloadKept(Program& program, Offload offload, std::vector<Instruction>& forward,
                    std::vector<Instruction>& backward) {
  if (offload == Offload::kNone || offload == Offload::kAuto) return 0;
  return Offloading(program, offload, forward, backward).Run();
}

}  // namespace autosp
