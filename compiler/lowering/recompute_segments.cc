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
  SegmentRecomputation(Program& program, Recompute recompute, double kept_weight,
                       std::vector<Instruction>& forward, std::vector<Instruction>& backward)
      : program_(program),
        recompute_(recompute),
        kept_weight_(kept_weight),
        forward_(forward),
        backward_(backward) {}

  void Run() {
    FindMakers();
    FindKept();
    std::vector<Instruction> result;
    for (Instruction& instruction : backward_) {
      for (ValueId id : AllReadsOf(instruction)) {
        Remake(id, instruction.phase, &result);
        if (program_.value(id).is_tape) used_tapes_.insert(id);
      }
      ReplaceReads(program_, remade_, instruction);
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
      NoteWrites(i, instruction);
      for (ValueId id : instruction.results) makers_[id] = i;
      if (instruction.kind == InstructionKind::kWait) {
        for (ValueId id : OperandsOf(instruction)) waits_[id] = i;
      }
    }
  }

  // A loop that fills what the forward made can run again; any other write cannot.
  void NoteWrites(size_t index, const Instruction& instruction) {
    const bool writes = instruction.kind == InstructionKind::kAccumulate ||
                        instruction.kind == InstructionKind::kUpdate;
    const bool is_in_loop = forward_[index].kind == InstructionKind::kFor;
    if (writes) {
      const StorageId storage = StorageOf(OperandsOf(instruction)[0]);
      const bool is_filled =
          is_in_loop && fillers_.try_emplace(storage, index).first->second == index;
      if (!is_filled) written_.insert(storage);
    }
    for (const Instruction& inner : instruction.body) NoteWrites(index, inner);
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
      for (ValueId id : AllReadsOf(forward_[i])) {
        const auto found = ranges.find(StorageOf(id));
        if (found != ranges.end()) found->second.last_read = i;
      }
    }
    std::set<StorageId> wanted;  // by the backward
    for (const Instruction& instruction : backward_) {
      // The loop of a tiled loss ends the forward, wherever it stands.
      if (instruction.kind == InstructionKind::kFor && instruction.phase == Phase::kForward) {
        for (ValueId id : AllReadsOf(instruction)) {
          const auto found = ranges.find(StorageOf(id));
          if (found != ranges.end()) found->second.last_read = forward_.size() - 1;
        }
      }
      for (ValueId id : AllReadsOf(instruction)) wanted.insert(StorageOf(id));
    }
    std::vector<int64_t> remade_bytes(forward_.size(), 0);
    std::vector<KeptRange> crossing;
    for (const auto& [storage, range] : ranges) {
      if (kept_.contains(storage)) continue;
      crossing.push_back(range);
      if (wanted.contains(storage)) remade_bytes[range.made] += range.bytes;
    }
    const std::vector<size_t> cuts =
        CutSegments(forward_.size(), crossing, remade_bytes, kept_weight_);
    for (const auto& [storage, range] : ranges) {
      // The backward of the last segment comes next: there is nothing to free in between.
      const auto cut = std::ranges::upper_bound(cuts, range.made);
      if (cut == cuts.end() || *cut <= range.last_read) kept_.insert(storage);
    }
    KeepWhatLoopsFillTogether();
  }

  // A loop that runs again fills all that it fills: none of that may be there still.
  void KeepWhatLoopsFillTogether() {
    std::set<size_t> kept_loops;
    for (const auto& [storage, loop] : fillers_) {
      if (kept_.contains(storage)) kept_loops.insert(loop);
    }
    for (const auto& [storage, loop] : fillers_) {
      if (kept_loops.contains(loop)) kept_.insert(storage);
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
    for (ValueId operand : ReadsOf(made)) Remake(operand, phase, body);
    if (remade_.contains(id)) return;  // by a loop that fills it
    Instruction again = made;
    if (again.kind == InstructionKind::kRecord) {
      if (used_tapes_.contains(again.results.back())) {
        DropTape(again);
      } else {
        recorded_again_.insert(maker->second);
      }
    }
    Append(again, phase, body);
    if (made.kind == InstructionKind::kStart) {
      Append(forward_[waits_.at(made.results[0])], phase, body);
    }
    const auto loop = fillers_.find(StorageOf(id));
    if (loop != fillers_.end() && made.kind != InstructionKind::kAlias) {
      RemakeLoop(loop->second, phase, body);
    }
  }

  // What a loop fills is made by the loop: all of it, and what it reads.
  void RemakeLoop(size_t index, Phase phase, std::vector<Instruction>* body) {
    if (!loops_again_.insert(index).second) return;
    for (ValueId id : AllReadsOf(forward_[index])) Remake(id, phase, body);
    Append(forward_[index], phase, body);
  }

  void Append(const Instruction& instruction, Phase phase, std::vector<Instruction>* body) {
    Instruction again = CloneInstruction(program_, instruction, "_again", remade_);
    SetPhase(phase, again);
    body->push_back(std::move(again));
  }

  static void SetPhase(Phase phase, Instruction& instruction) {
    instruction.phase = phase;
    for (Instruction& inner : instruction.body) SetPhase(phase, inner);
  }

  // What is recorded in the backward need not be in the forward.
  void DropTapes() {
    for (size_t index : recorded_again_) DropTape(forward_[index]);
  }

  Program& program_;
  const Recompute recompute_;
  const double kept_weight_;
  std::vector<Instruction>& forward_;
  std::vector<Instruction>& backward_;
  std::map<ValueId, size_t> makers_;     // the step that makes a value
  std::map<ValueId, size_t> waits_;      // the step that ends an exchange, by its results
  std::map<StorageId, size_t> fillers_;  // the loop that adds up what lies there
  std::set<size_t> loops_again_;
  std::set<StorageId> written_;  // by other steps of the forward, in place
  std::set<StorageId> kept_;
  std::map<ValueId, ValueId> remade_;
  std::set<size_t> recorded_again_;
  std::set<ValueId> used_tapes_;  // of the forward, by the backward
};

}  // namespace

void RecomputeSegments(Program& program, Recompute recompute, double kept_weight,
                       std::vector<Instruction>& forward, std::vector<Instruction>& backward) {
  if (recompute == Recompute::kNone || recompute == Recompute::kAuto) return;
  SegmentRecomputation(program, recompute, kept_weight, forward, backward).Run();
}

}  // namespace autosp
