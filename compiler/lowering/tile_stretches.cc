#include "compiler/lowering/tile_stretches.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "compiler/lowering/token_region.h"

namespace autosp {
namespace {

// What becomes one loop: in the forward or the backward.
struct StretchPart {
  std::set<size_t> members;    // indices
  std::vector<ValueId> exits;  // that others read

  size_t first() const { return *members.begin(); }
  size_t last() const { return *members.rbegin(); }
};

struct StretchRegion {
  TokenRegion tokens;
  StretchPart forward;
  StretchPart backward = {};
  std::vector<ValueId> sums = {};  // gradients from outside to which it adds
};

class StretchTiling {
 public:
  StretchTiling(ProgramBuilder& builder, const std::vector<AdjointRange>& adjoints,
                std::vector<Instruction>& forward, std::vector<Instruction>& backward)
      : builder_(builder),
        program_(builder.program()),
        adjoints_(adjoints),
        forward_(forward),
        backward_(backward) {}

  int64_t Run() {
    for (size_t i = 0; i < forward_.size(); ++i) {
      for (ValueId id : forward_[i].results) makers_[id] = i;
      for (ValueId id : AllReadsOf(forward_[i])) readers_[id].push_back(i);
    }
    FindStretches();
    for (const std::vector<Instruction>* body : {&forward_, &backward_}) {
      for (const Instruction& instruction : *body) {
        if (instruction.kind == InstructionKind::kAlias) continue;
        for (ValueId id : instruction.results) owners_[program_.value(id).storage] = id;
      }
    }
    for (size_t i = 0; i < backward_.size(); ++i) {
      if (backward_[i].kind == InstructionKind::kAlias) views_[backward_[i].results[0]] = i;
    }
    for (size_t i = 0; i < forward_.size(); ++i) {
      if (tried_.contains(i) || !IsProduct(forward_[i])) continue;
      std::optional<StretchRegion> region = FindRegion(i);
      if (region) regions_.push_back(*std::move(region));
    }
    if (regions_.empty()) return 0;
    std::vector<Instruction> forward =
        Rewrite(&StretchRegion::forward, forward_,
                [this](const StretchRegion& region, TileBody& tile) { AddForward(region, tile); });
    old_forward_ = std::exchange(forward_, std::move(forward));
    backward_ =
        Rewrite(&StretchRegion::backward, backward_,
                [this](const StretchRegion& region, TileBody& tile) { AddBackward(region, tile); });
    return static_cast<int64_t>(regions_.size());
  }

 private:
  int64_t NumelOf(ValueId id) const {
    return program_.value(id).is_tape ? 0 : program_.LocalNumel(program_.value(id));
  }

  // What is connected by values that are made and read within one stretch of token-local
  // instructions: between two attentions, without what is handed on past the next one.
  std::set<size_t> Connected(size_t product) {
    std::set<size_t> members;
    std::vector<size_t> pending = {product};
    while (!pending.empty()) {
      const size_t at = pending.back();
      pending.pop_back();
      if (!members.insert(at).second) continue;
      tried_.insert(at);
      std::vector<ValueId> values = ReadsOf(forward_[at]);
      values.insert(values.end(), forward_[at].results.begin(), forward_[at].results.end());
      for (ValueId id : values) {
        const auto maker = makers_.find(id);
        if (maker == makers_.end() || !StaysWithin(id, maker->second)) continue;
        pending.push_back(maker->second);
        for (size_t reader : readers_[id]) pending.push_back(reader);
      }
    }
    return members;
  }

  // Whether a value for each token is made and read by instructions that a region may have, all of
  // them before the next that none may have.
  bool StaysWithin(ValueId id, size_t maker) const {
    if (program_.value(id).is_tape) return true;
    if (!SequenceOf(program_, id) || !IsOfTokens(forward_[maker])) return false;
    const auto readers = readers_.find(id);
    if (readers == readers_.end()) return false;
    return std::ranges::all_of(readers->second, [&](size_t reader) {
      return IsOfTokens(forward_[reader]) && stretches_[reader] == stretches_[maker];
    });
  }

  // Attention and exchanges end a stretch; what is made of nothing, as positions are, does not.
  void FindStretches() {
    size_t stretch = 0;
    for (const Instruction& instruction : forward_) {
      const bool reads_tokens = std::ranges::any_of(AllReadsOf(instruction), [this](ValueId id) {
        return makers_.contains(id) && SequenceOf(program_, id).has_value();
      });
      if (!IsOfTokens(instruction) && reads_tokens) ++stretch;
      stretches_.push_back(stretch);
    }
  }

  std::optional<StretchRegion> FindRegion(size_t product) {
    const ValueId wide = forward_[product].results[0];
    const std::optional<TiledFactor> sequence = SequenceOf(program_, wide);
    if (!sequence) return std::nullopt;
    StretchRegion region{TokenRegion(program_, *sequence), {Connected(product), {}}};
    if (!EnterForward(region) || !EnterBackward(region)) return std::nullopt;
    for (ValueId id : region.tokens.exits()) {
      (makers_.contains(id) ? region.forward : region.backward).exits.push_back(id);
    }
    if (region.forward.exits.empty() || !HasTiles(*sequence, WidthOf(region))) return std::nullopt;
    return region;
  }

  // How many times as wide as what enters a product what it makes is, at most.
  int64_t WidthOf(const StretchRegion& region) const {
    int64_t width = 2;
    for (size_t at : region.forward.members) {
      if (!IsProduct(forward_[at])) continue;
      const int64_t from = NumelOf(RowsOf(forward_[at]));
      width = std::max(width, (NumelOf(forward_[at].results[0]) + from - 1) / from);
    }
    return width;
  }

  bool EnterForward(StretchRegion& region) {
    const StretchPart& part = region.forward;
    for (size_t i = part.first(); i < forward_.size(); ++i) {
      if (part.members.contains(i)) {
        if (!region.tokens.Enter(forward_[i])) return false;
      } else if (i < part.last() ? region.tokens.Reads(forward_[i])
                                 : !region.tokens.Leave(forward_[i])) {
        return false;
      }
    }
    return true;
  }

  bool EnterBackward(StretchRegion& region) {
    StretchPart& part = region.backward;
    for (size_t i : region.forward.members) {
      for (size_t at = adjoints_[i].first; at < adjoints_[i].second; ++at) part.members.insert(at);
    }
    if (part.members.empty()) return false;
    if (std::ranges::any_of(regions_, [&](const StretchRegion& other) {
          return other.backward.first() < part.last() && part.first() < other.backward.last();
        })) {
      return false;  // each would wait for the other
    }
    for (size_t at : part.members) {
      if (!TakeSum(region, backward_[at]) || !region.tokens.Enter(backward_[at])) return false;
    }
    for (size_t i = 0; i < backward_.size(); ++i) {
      if (part.members.contains(i)) continue;
      const bool is_between = i > part.first() && i < part.last();
      if (is_between && ReadsGradient(region, backward_[i])) return false;
      if (!region.tokens.Leave(backward_[i])) return false;
    }
    return true;
  }

  // A gradient from outside to which the region adds, as a residual's: tiles work on a copy of
  // their part, which leaves as a new value, so that nothing is read from where tiles write.
  bool TakeSum(StretchRegion& region, const Instruction& instruction) {
    if (instruction.kind != InstructionKind::kAccumulate) return true;
    // Of a view, what it is a view of.
    const StorageId storage = program_.value(OperandsOf(instruction)[0]).storage;
    const auto owner = owners_.find(storage);
    if (owner == owners_.end() || region.tokens.Has(owner->second)) return true;
    const ValueId sum = owner->second;
    if (!HasFactor(program_.value(sum), region.tokens.factor().factor)) return true;
    for (size_t i = region.backward.first(); i < backward_.size(); ++i) {
      if (backward_[i].kind == InstructionKind::kAlias) continue;
      for (ValueId id : AllReadsOf(backward_[i])) {
        if (program_.value(id).storage == storage && !IsLateView(region, sum, id)) return false;
      }
    }
    region.sums.push_back(sum);
    region.tokens.TakeIn(sum);
    return true;
  }

  // A view that is made in or after the region, of the sum or of such a view; any other would show
  // what the sum was before.
  bool IsLateView(const StretchRegion& region, ValueId sum, ValueId id) const {
    while (id != sum) {
      const auto made = views_.find(id);
      if (made == views_.end() || made->second < region.backward.first()) return false;
      id = OperandsOf(backward_[made->second])[0];
    }
    return true;
  }

  // What the loop of the backward makes is there after it; what that of the forward makes, always.
  bool ReadsGradient(const StretchRegion& region, const Instruction& instruction) const {
    return region.tokens.Reads(instruction) &&
           std::ranges::any_of(AllReadsOf(instruction), [&](ValueId id) {
             return !makers_.contains(id) && region.tokens.Has(id);
           });
  }

  // All loops run over the same number of tiles.
  bool HasTiles(const TiledFactor& factor, int64_t wanted) {
    int64_t& tiles = program_.mesh.tile;
    if (tiles > 1) return ChooseTiles(program_, factor, tiles) == tiles;
    tiles = ChooseTiles(program_, factor, wanted);
    return tiles > 1;
  }

  // The body with the part of each region as a loop in the place of its last instruction. Leaves
  // the members behind in `body`, with what they read by now.
  template <typename Fill>
  std::vector<Instruction> Rewrite(StretchPart StretchRegion::*part, std::vector<Instruction>& body,
                                   Fill fill) {
    std::map<size_t, const StretchRegion*> ends;
    std::set<size_t> members;
    for (const StretchRegion& region : regions_) {
      const StretchPart& here = region.*part;
      ends[here.last()] = &region;
      members.insert(here.members.begin(), here.members.end());
    }
    std::vector<Instruction> result;
    for (size_t i = 0; i < body.size(); ++i) {
      ReplaceReads(program_, wholes_, body[i]);
      const auto end = ends.find(i);
      if (end != ends.end()) {
        const StretchRegion& region = *end->second;
        AppendLoop(body[i].phase, region.tokens.factor(), (region.*part).exits, &result,
                   [&](TileBody& tile) { fill(region, tile); });
      } else if (!members.contains(i)) {
        result.push_back(std::move(body[i]));
      }
    }
    return result;
  }

  template <typename Fill>
  void AppendLoop(Phase phase, const TiledFactor& factor, const std::vector<ValueId>& exits,
                  std::vector<Instruction>* to, Fill fill) {
    std::vector<Instruction>* outer = builder_.SetBody(to);
    const Phase outer_phase = builder_.SetPhase(phase);
    std::vector<ValueId> now;
    for (ValueId id : exits) now.push_back(Now(id));
    const std::map<ValueId, ValueId> wholes = MakeExits(builder_, now);
    Instruction loop = TileLoop(program_);
    loop.phase = phase;
    builder_.SetBody(&loop.body);
    TileBody body(builder_, factor);
    fill(body);
    for (ValueId id : now) body.AddInto(wholes.at(id), id);
    for (size_t i = 0; i < exits.size(); ++i) wholes_[exits[i]] = wholes.at(now[i]);
    builder_.SetPhase(outer_phase);
    builder_.SetBody(outer);
    to->push_back(std::move(loop));
  }

  // What stands for a value here: a loop before may have made it anew.
  ValueId Now(ValueId id) const {
    const auto found = wholes_.find(id);
    return found == wholes_.end() ? id : found->second;
  }

  void AddForward(const StretchRegion& region, TileBody& body) const {
    for (size_t at : region.forward.members) {
      Instruction plain = forward_[at];
      if (plain.kind == InstructionKind::kRecord) DropTape(plain);
      body.Add(plain);
    }
  }

  // What the derivatives need of the forward is made again.
  void AddBackward(const StretchRegion& region, TileBody& body) {
    for (ValueId sum : region.sums) body.AddCopy(Now(sum));
    std::set<ValueId> needed;
    for (size_t at : region.backward.members) {
      for (ValueId id : ReadsOf(backward_[at])) needed.insert(id);
    }
    std::vector<size_t> again;
    const std::set<size_t>& members = region.forward.members;
    for (auto at = members.rbegin(); at != members.rend(); ++at) {
      const Instruction& instruction = old_forward_[*at];
      const bool is_needed =
          std::ranges::any_of(instruction.results, [&](ValueId id) { return needed.contains(id); });
      if (!is_needed) continue;
      again.push_back(*at);
      for (ValueId id : ReadsOf(instruction)) needed.insert(id);
    }
    for (auto at = again.rbegin(); at != again.rend(); ++at) {
      Instruction instruction = old_forward_[*at];
      instruction.phase = Phase::kBackward;
      body.Add(instruction);
    }
    for (ValueId id : region.forward.exits) body.Know(Now(id), id);
    for (size_t at : region.backward.members) body.Add(backward_[at]);
  }

  ProgramBuilder& builder_;
  Program& program_;
  const std::vector<AdjointRange>& adjoints_;
  std::vector<Instruction>& forward_;
  std::vector<Instruction>& backward_;
  std::vector<Instruction> old_forward_;
  std::map<ValueId, size_t> makers_;                // in the forward
  std::map<ValueId, std::vector<size_t>> readers_;  // likewise
  std::map<StorageId, ValueId> owners_;             // what memory was made for
  std::map<ValueId, size_t> views_;                 // in the backward
  std::vector<size_t> stretches_;                   // by instruction of the forward
  std::set<size_t> tried_;
  std::vector<StretchRegion> regions_;
  std::map<ValueId, ValueId> wholes_;  // what tiles made, put together
};

}  // namespace

int64_t TileStretches(ProgramBuilder& builder, const std::vector<AdjointRange>& adjoints,
                      std::vector<Instruction>& forward, std::vector<Instruction>& backward) {
  return StretchTiling(builder, adjoints, forward, backward).Run();
}

}  // namespace autosp
