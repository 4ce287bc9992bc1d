#include "compiler/lowering/recompute_segments.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "compiler/lowering/block_attention.h"
#include "compiler/lowering/segment_cuts.h"

namespace autosp {
namespace {

bool IsAttention(const Instruction& instruction) {
  return instruction.op == kBlockAttention ||
         absl::StrContains(instruction.op, "scaled_dot_product");
}

class SegmentRecomputation {
 public:
  SegmentRecomputation(Program& program, Recompute recompute, std::vector<Instruction>& forward,
                       std::vector<Instruction>& backward)
      : program_(program), recompute_(recompute), forward_(forward), backward_(backward) {}

  void Run() {
    FindMakers();
    FindKept();
    std::vector<Instruction> result;
    for (Instruction& instruction : backward_) {
      for (ValueId id : ReadsOf(instruction)) {
        Remake(id, instruction.phase, &result);
        if (program_.value(id).is_tape) used_tapes_.insert(id);
      }
      Rename(instruction);
      if (instruction.kind == InstructionKind::kAlias) MoveToNewMemory(instruction);
      result.push_back(std::move(instruction));
    }
    backward_ = std::move(result);
    DropTapes();
  }

 private:
  StorageId StorageOf(ValueId id) const { return program_.value(id).storage; }

  void FindMakers() {
    for (size_t i = 0; i < forward_.size(); ++i) {
      const Instruction& instruction = forward_[i];
      if (instruction.kind == InstructionKind::kAccumulate ||
          instruction.kind == InstructionKind::kUpdate) {
        written_.insert(StorageOf(OperandsOf(instruction)[0]));
      }
      for (ValueId id : instruction.results) makers_[id] = i;
      if (instruction.kind == InstructionKind::kWait) {
        for (ValueId id : OperandsOf(instruction)) waits_[id] = i;
      }
    }
  }

  // Whether a step may run again: it only makes values, and is worth it.
  bool MayRunAgain(const Instruction& instruction) const {
    switch (instruction.kind) {
      case InstructionKind::kCall:
      case InstructionKind::kRecord:
        return recompute_ == Recompute::kFull || !IsAttention(instruction);
      case InstructionKind::kStart:
        return recompute_ == Recompute::kFull;
      case InstructionKind::kCopy:
      case InstructionKind::kAlias:
        return true;
      default:
        return false;
    }
  }

  // What is read across a cut, and what no step makes again.
  void FindKept() {
    std::map<StorageId, KeptRange> ranges;
    for (size_t i = 0; i < forward_.size(); ++i) {
      for (ValueId id : forward_[i].results) {
        if (program_.value(id).is_tape) continue;
        const StorageId storage = StorageOf(id);
        ranges.try_emplace(storage,
                           KeptRange{.made = i, .last_read = i, .bytes = StorageBytes(id)});
        if (!MayRunAgain(forward_[i]) || written_.contains(storage)) kept_.insert(storage);
      }
      for (ValueId id : ReadsOf(forward_[i])) {
        const auto found = ranges.find(StorageOf(id));
        if (found != ranges.end()) found->second.last_read = i;
      }
    }
    std::set<StorageId> wanted;  // by the backward
    for (const Instruction& instruction : backward_) {
      for (ValueId id : ReadsOf(instruction)) wanted.insert(StorageOf(id));
    }
    std::vector<int64_t> remade_bytes(forward_.size(), 0);
    std::vector<KeptRange> crossing;
    for (const auto& [storage, range] : ranges) {
      if (kept_.contains(storage)) continue;
      crossing.push_back(range);
      if (wanted.contains(storage)) remade_bytes[range.made] += range.bytes;
    }
    const std::vector<size_t> cuts = CutSegments(forward_.size(), crossing, remade_bytes);
    for (const auto& [storage, range] : ranges) {
      // The backward of the last segment comes next: there is nothing to free in between.
      const auto cut = std::ranges::upper_bound(cuts, range.made);
      if (cut == cuts.end() || *cut <= range.last_read) kept_.insert(storage);
    }
  }

  int64_t StorageBytes(ValueId id) const { return program_.LocalBytes(program_.value(id)); }

  // A tape costs nothing where all that it saved is kept.
  bool IsKeptTape(const Instruction& record) const {
    if (record.attributes.contains("opaque")) return false;
    return std::ranges::all_of(ValuesAttribute(record, "saves"), [this](ValueId id) {
      return kept_.contains(StorageOf(id)) || !makers_.contains(id);
    });
  }

  bool IsKept(ValueId id, const Instruction& maker) const {
    if (program_.value(id).is_tape) return IsKeptTape(maker);
    return kept_.contains(StorageOf(id));
  }

  void Remake(ValueId id, Phase phase, std::vector<Instruction>* body) {
    const auto maker = makers_.find(id);
    if (maker == makers_.end() || remade_.contains(id)) return;
    const Instruction& made = forward_[maker->second];
    if (IsKept(id, made) || !MayRunAgain(made)) return;
    for (ValueId operand : ReadsOf(made)) {
      if (std::ranges::count(made.results, operand) == 0) Remake(operand, phase, body);
    }
    Instruction again = made;
    again.phase = phase;
    if (again.kind == InstructionKind::kRecord) {
      if (used_tapes_.contains(again.results.back())) {
        DropTape(again);
      } else {
        recorded_again_.insert(maker->second);
      }
    }
    Rename(again);
    for (ValueId& result : again.results) result = NewName(result, again);
    Rename(again);  // a tape that saves a result
    body->push_back(std::move(again));
    if (made.kind == InstructionKind::kStart) RepeatWait(made, phase, body);
  }

  ValueId NewName(ValueId before, const Instruction& maker) {
    ProgramValue value = program_.value(before);
    value.name = absl::StrCat(value.name, "_again");
    const ValueId again = maker.kind == InstructionKind::kAlias
                              ? program_.AddAlias(std::move(value), OperandsOf(maker)[0])
                              : program_.AddValue(std::move(value));
    remade_[before] = again;
    return again;
  }

  void RepeatWait(const Instruction& start, Phase phase, std::vector<Instruction>* body) {
    Instruction wait = forward_[waits_.at(start.results[0])];
    wait.phase = phase;
    Rename(wait);
    body->push_back(std::move(wait));
  }

  void Rename(Instruction& instruction) const {
    const auto rename = [this](ValueId& id) {
      const auto found = remade_.find(id);
      if (found != remade_.end()) id = found->second;
    };
    for (Argument& argument : instruction.args) ForEachValue(argument, rename);
    for (auto& [key, argument] : instruction.attributes) ForEachValue(argument, rename);
  }

  // A view of what is made again lies in the new memory.
  void MoveToNewMemory(const Instruction& alias) {
    program_.value(alias.results[0]).storage = StorageOf(OperandsOf(alias)[0]);
  }

  // What is recorded in the backward need not be in the forward.
  void DropTapes() {
    for (size_t index : recorded_again_) DropTape(forward_[index]);
  }

  static void DropTape(Instruction& record) {
    record.kind = InstructionKind::kCall;
    record.results.pop_back();
    for (const char* key : {"diff", "saves", "opaque"}) record.attributes.erase(key);
  }

  Program& program_;
  const Recompute recompute_;
  std::vector<Instruction>& forward_;
  std::vector<Instruction>& backward_;
  std::map<ValueId, size_t> makers_;  // the step that makes a value
  std::map<ValueId, size_t> waits_;   // the step that ends an exchange, by its results
  std::set<StorageId> written_;       // by steps of the forward, in place
  std::set<StorageId> kept_;
  std::map<ValueId, ValueId> remade_;
  std::set<size_t> recorded_again_;
  std::set<ValueId> used_tapes_;  // of the forward, by the backward
};

}  // namespace

void RecomputeSegments(Program& program, Recompute recompute, std::vector<Instruction>& forward,
                       std::vector<Instruction>& backward) {
  if (recompute == Recompute::kNone || recompute == Recompute::kAuto) return;
  SegmentRecomputation(program, recompute, forward, backward).Run();
}

}  // namespace autosp
