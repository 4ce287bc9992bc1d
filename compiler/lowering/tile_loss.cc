#include "compiler/lowering/tile_loss.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "compiler/lowering/token_region.h"

namespace autosp {
namespace {

class LossTiling {
 public:
  LossTiling(ProgramBuilder& builder, std::vector<AdjointRange>& adjoints,
             std::vector<Instruction>& forward, std::vector<Instruction>& backward)
      : builder_(builder),
        program_(builder.program()),
        adjoints_(adjoints),
        forward_(forward),
        backward_(backward) {}

  int64_t Run(int64_t tiles) {
    if (!FindLoss() || !FindForward() || !FindBackward() || !FindExits()) return 1;
    tiles = NumTiles(tiles);
    if (tiles == 1) return 1;
    program_.mesh.tile = tiles;
    MoveIntoLoop();
    return tiles;
  }

 private:
  int64_t NumelOf(ValueId id) const { return program_.LocalNumel(program_.value(id)); }

  // The largest cross entropy, and the sequence of its logits.
  bool FindLoss() {
    int64_t largest = 0;
    for (size_t i = 0; i < forward_.size(); ++i) {
      if (!forward_[i].op.starts_with("autosp.cross_entropy")) continue;
      const ValueId logits = OperandsOf(forward_[i])[0];
      if (NumelOf(logits) <= largest) continue;
      largest = NumelOf(logits);
      loss_ = i;
      logits_ = logits;
    }
    if (largest == 0) return false;
    const std::optional<TiledFactor> sequence = SequenceOf(program_, logits_);
    if (sequence) region_.emplace(program_, *sequence);
    return sequence.has_value();
  }

  // From the product that makes the logits to all that follows from them.
  bool FindForward() {
    std::map<ValueId, size_t> makers;
    for (size_t i = 0; i < forward_.size(); ++i) {
      for (ValueId id : forward_[i].results) makers[id] = i;
    }
    bool has_product = false;
    std::vector<size_t> pending = {loss_};
    while (!pending.empty()) {
      const size_t at = pending.back();
      pending.pop_back();
      if (!in_forward_.insert(at).second || !IsOfTokens(forward_[at])) continue;
      has_product = has_product || IsProduct(forward_[at]);
      if (IsProduct(forward_[at])) continue;
      for (ValueId id : ReadsOf(forward_[at])) {
        const auto maker = makers.find(id);
        const bool is_wide = maker != makers.end() && NumelOf(id) >= NumelOf(logits_);
        if (is_wide) pending.push_back(maker->second);
      }
    }
    for (size_t i = 0; i < forward_.size(); ++i) {
      const bool is_member = in_forward_.contains(i);
      if (!is_member && !region_->Reads(forward_[i]) && !ReadsLate(forward_[i])) continue;
      if (!ReadsLate(forward_[i]) && region_->Enter(forward_[i])) {
        in_forward_.insert(i);
      } else if (is_member || !MakeLate(forward_[i])) {
        return false;
      } else {
        late_forward_.insert(i);
      }
    }
    return has_product;
  }

  bool ReadsLate(const Instruction& instruction) const {
    return std::ranges::any_of(AllReadsOf(instruction),
                               [this](ValueId id) { return late_.contains(id); });
  }

  // What needs the sum over all tokens, as the sum of several losses does, comes after the loop.
  bool MakeLate(const Instruction& instruction) {
    late_.insert(instruction.results.begin(), instruction.results.end());
    return region_->Leave(instruction, /*sums=*/true);
  }

  // The adjoints of that, and what comes before them and reads the loss.
  bool FindBackward() {
    in_backward_.assign(backward_.size(), false);
    size_t first = backward_.size();
    for (size_t i = 0; i < adjoints_.size(); ++i) {
      const auto [begin, end] = adjoints_[i];
      if (begin < end) first = std::min(first, begin);
      for (size_t at = begin; at < end; ++at) in_backward_[at] = in_forward_.contains(i);
    }
    for (size_t i = 0; i < backward_.size(); ++i) {
      if (i < first && ReadsLate(backward_[i])) {
        if (!MakeLate(backward_[i])) return false;
        late_backward_.insert(i);
        continue;
      }
      if (i < first && region_->Reads(backward_[i])) in_backward_[i] = true;
      if (in_backward_[i] && region_->AddsToTokensOutside(backward_[i])) in_backward_[i] = false;
      if (!in_backward_[i]) continue;
      if (ReadsLate(backward_[i]) || !region_->Enter(backward_[i])) return false;
      end_ = i + 1;
    }
    return true;
  }

  // What the rest of the backward reads: gradients of what came from outside.
  bool FindExits() {
    for (size_t i = 0; i < backward_.size(); ++i) {
      if (in_backward_[i] || late_backward_.contains(i)) continue;
      const bool is_before = i < end_;
      if (is_before && (region_->Reads(backward_[i]) || ReadsLate(backward_[i]))) return false;
      if (!region_->Leave(backward_[i])) return false;
    }
    return true;
  }

  int64_t NumTiles(int64_t wanted) const {
    // The loops of other sections run over as many.
    if (wanted > 0) {
      return ChooseTiles(program_, region_->factor(), wanted) == wanted ? wanted : 1;
    }
    int64_t narrow = 0;  // what the logits are made from
    for (size_t i : in_forward_) {
      if (IsProduct(forward_[i])) narrow = std::max(narrow, NumelOf(RowsOf(forward_[i])));
    }
    if (narrow == 0) return 1;
    return ChooseTiles(program_, region_->factor(), (NumelOf(logits_) + narrow - 1) / narrow);
  }

  void MoveIntoLoop() {
    std::vector<Instruction> rest = std::move(backward_);
    std::vector<size_t> places(rest.size(), 0);  // of what is not moved, afterwards
    backward_.clear();
    for (size_t i = 0; i < end_; ++i) {
      if (in_backward_[i] || late_backward_.contains(i)) continue;
      places[i] = backward_.size();
      backward_.push_back(std::move(rest[i]));
    }
    std::vector<Instruction>* outer = builder_.SetBody(&backward_);
    const Phase phase = builder_.SetPhase(Phase::kBackward);
    const std::map<ValueId, ValueId> wholes = MakeExits(builder_, region_->exits());
    Instruction loop = TileLoop(program_);
    builder_.SetBody(&loop.body);
    TileBody body(builder_, region_->factor());
    for (size_t i : in_forward_) body.Add(forward_[i]);
    for (size_t i = 0; i < end_; ++i) {
      if (in_backward_[i]) body.Add(rest[i]);
    }
    for (ValueId id : region_->exits()) body.AddInto(wholes.at(id), id);
    builder_.SetPhase(phase);
    builder_.SetBody(outer);
    backward_.push_back(std::move(loop));
    const auto append = [&](Instruction& instruction) {
      ReplaceReads(program_, wholes, instruction);
      backward_.push_back(std::move(instruction));
    };
    for (size_t i : late_forward_) append(forward_[i]);
    for (size_t i : late_backward_) append(rest[i]);
    for (size_t i = end_; i < rest.size(); ++i) {
      if (late_backward_.contains(i)) continue;
      places[i] = backward_.size();
      append(rest[i]);
    }
    DropFromForward(places);
  }

  void DropFromForward(const std::vector<size_t>& places) {
    std::vector<Instruction> kept;
    std::vector<AdjointRange> ranges;
    for (size_t i = 0; i < forward_.size(); ++i) {
      if (in_forward_.contains(i) || late_forward_.contains(i)) continue;
      kept.push_back(std::move(forward_[i]));
      if (adjoints_.empty()) continue;
      const auto [begin, end] = adjoints_[i];
      ranges.emplace_back(begin < end ? AdjointRange{places[begin], places[end - 1] + 1}
                                      : AdjointRange{});
    }
    forward_ = std::move(kept);
    adjoints_ = std::move(ranges);
  }

  ProgramBuilder& builder_;
  Program& program_;
  std::vector<AdjointRange>& adjoints_;
  std::vector<Instruction>& forward_;
  std::vector<Instruction>& backward_;
  size_t loss_ = 0;
  ValueId logits_;
  std::optional<TokenRegion> region_;
  std::set<size_t> in_forward_;    // in order
  std::vector<bool> in_backward_;  // by instruction
  size_t end_ = 0;                 // after the last of them
  std::set<size_t> late_forward_;  // after the loop
  std::set<size_t> late_backward_;
  std::set<ValueId> late_;  // what they make
};

}  // namespace

int64_t TileLoss(ProgramBuilder& builder, int64_t tiles, std::vector<AdjointRange>& adjoints,
                 std::vector<Instruction>& forward, std::vector<Instruction>& backward) {
  return LossTiling(builder, adjoints, forward, backward).Run(tiles);
}

}  // namespace autosp
