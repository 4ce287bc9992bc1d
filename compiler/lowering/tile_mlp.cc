#include "compiler/lowering/tile_mlp.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "compiler/lowering/token_region.h"

namespace autosp {
namespace {

struct MlpRegion {
  TokenRegion tokens;
  std::set<size_t> forward;        // indices, in order
  std::vector<size_t> backward;    // likewise
  std::vector<ValueId> results;    // of the forward, that others read
  std::vector<ValueId> gradients;  // of the backward, that others read
};

class MlpTiling {
 public:
  MlpTiling(ProgramBuilder& builder, const std::vector<AdjointRange>& adjoints,
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
    for (size_t i = 0; i < forward_.size(); ++i) {
      if (tried_.contains(i) || !IsProduct(forward_[i])) continue;
      std::optional<MlpRegion> region = FindRegion(i);
      if (region) regions_.push_back(*std::move(region));
    }
    if (regions_.empty()) return 0;
    RewriteForward();
    RewriteBackward();
    return static_cast<int64_t>(regions_.size());
  }

 private:
  int64_t NumelOf(ValueId id) const {
    return program_.value(id).is_tape ? 0 : program_.LocalNumel(program_.value(id));
  }

  // What is connected with the result of a product by values that are at least as wide.
  std::set<size_t> Connected(size_t product, int64_t width) {
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
        if (maker == makers_.end() || NumelOf(id) < width) continue;
        pending.push_back(maker->second);
        for (size_t reader : readers_[id]) pending.push_back(reader);
      }
    }
    return members;
  }

  std::optional<MlpRegion> FindRegion(size_t product) {
    const ValueId wide = forward_[product].results[0];
    const int64_t width = 2 * NumelOf(RowsOf(forward_[product]));
    const std::optional<TiledFactor> sequence = SequenceOf(program_, wide);
    if (!sequence || NumelOf(wide) < width) return std::nullopt;
    MlpRegion region{TokenRegion(program_, *sequence), Connected(product, width), {}, {}, {}};
    if (!EnterForward(region) || !EnterBackward(region)) return std::nullopt;
    for (ValueId id : region.tokens.exits()) {
      if (NumelOf(id) >= width) return std::nullopt;
      (makers_.contains(id) ? region.results : region.gradients).push_back(id);
    }
    if (region.results.empty() || !HasTiles(*sequence, 2 * NumelOf(wide) / width)) {
      return std::nullopt;
    }
    return region;
  }

  bool EnterForward(MlpRegion& region) {
    const size_t last = *region.forward.rbegin();
    for (size_t i = *region.forward.begin(); i < forward_.size(); ++i) {
      if (region.forward.contains(i)) {
        if (!region.tokens.Enter(forward_[i])) return false;
      } else if (i < last ? region.tokens.Reads(forward_[i]) : !region.tokens.Leave(forward_[i])) {
        return false;
      }
    }
    return true;
  }

  bool EnterBackward(MlpRegion& region) {
    std::set<size_t> members;
    for (size_t i : region.forward) {
      for (size_t at = adjoints_[i].first; at < adjoints_[i].second; ++at) members.insert(at);
    }
    for (size_t at : members) {
      if (region.tokens.AddsToTokensOutside(backward_[at])) continue;
      if (!region.tokens.Enter(backward_[at])) return false;
      region.backward.push_back(at);
    }
    if (region.backward.empty()) return false;
    for (size_t i = 0; i < backward_.size(); ++i) {
      if (std::ranges::binary_search(region.backward, i)) continue;
      if (i < region.backward.back() ? region.tokens.Reads(backward_[i])
                                     : !region.tokens.Leave(backward_[i])) {
        return false;
      }
    }
    return true;
  }

  // All loops run over the same number of tiles.
  bool HasTiles(const TiledFactor& factor, int64_t wanted) {
    int64_t& tiles = program_.mesh.tile;
    if (tiles > 1) return ChooseTiles(program_, factor, tiles) == tiles;
    tiles = ChooseTiles(program_, factor, wanted);
    return tiles > 1;
  }

  // Each region becomes a loop in the place of its last instruction.
  void RewriteForward() {
    std::map<size_t, const MlpRegion*> ends;
    std::set<size_t> members;
    for (const MlpRegion& region : regions_) {
      ends[*region.forward.rbegin()] = &region;
      members.insert(region.forward.begin(), region.forward.end());
    }
    std::vector<Instruction> result;
    for (size_t i = 0; i < forward_.size(); ++i) {
      ReplaceReads(program_, wholes_, forward_[i]);
      const auto end = ends.find(i);
      if (end != ends.end()) {
        AppendLoop(forward_[i].phase, end->second->tokens.factor(), end->second->results, &result,
                   [&](TileBody& body) {
                     for (size_t at : end->second->forward) {
                       Instruction plain = forward_[at];
                       if (plain.kind == InstructionKind::kRecord) DropTape(plain);
                       body.Add(plain);
                     }
                   });
      } else if (!members.contains(i)) {
        result.push_back(forward_[i]);
      }
    }
    old_forward_ = std::move(forward_);
    forward_ = std::move(result);
  }

  void RewriteBackward() {
    std::map<size_t, const MlpRegion*> ends;
    std::set<size_t> members;
    for (const MlpRegion& region : regions_) {
      ends[region.backward.back()] = &region;
      members.insert(region.backward.begin(), region.backward.end());
    }
    std::vector<Instruction> result;
    for (size_t i = 0; i < backward_.size(); ++i) {
      ReplaceReads(program_, wholes_, backward_[i]);
      const auto end = ends.find(i);
      if (end != ends.end()) {
        AppendLoop(backward_[i].phase, end->second->tokens.factor(), end->second->gradients,
                   &result, [&](TileBody& body) { AddBackward(*end->second, body); });
      } else if (!members.contains(i)) {
        result.push_back(std::move(backward_[i]));
      }
    }
    backward_ = std::move(result);
  }

  template <typename Fill>
  void AppendLoop(Phase phase, const TiledFactor& factor, const std::vector<ValueId>& exits,
                  std::vector<Instruction>* to, Fill fill) {
    std::vector<Instruction>* outer = builder_.SetBody(to);
    const Phase outer_phase = builder_.SetPhase(phase);
    const std::map<ValueId, ValueId> wholes = MakeExits(builder_, exits);
    Instruction loop = TileLoop(program_);
    loop.phase = phase;
    builder_.SetBody(&loop.body);
    TileBody body(builder_, factor);
    fill(body);
    for (ValueId id : exits) body.AddInto(wholes.at(id), id);
    wholes_.insert(wholes.begin(), wholes.end());
    builder_.SetPhase(outer_phase);
    builder_.SetBody(outer);
    to->push_back(std::move(loop));
  }

  // What the derivatives need of the forward is made again.
  void AddBackward(const MlpRegion& region, TileBody& body) {
    std::set<ValueId> needed;
    for (size_t at : region.backward) {
      for (ValueId id : ReadsOf(backward_[at])) needed.insert(id);
    }
    std::vector<size_t> again;
    for (auto at = region.forward.rbegin(); at != region.forward.rend(); ++at) {
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
    for (size_t at : region.backward) body.Add(backward_[at]);
  }

  ProgramBuilder& builder_;
  Program& program_;
  const std::vector<AdjointRange>& adjoints_;
  std::vector<Instruction>& forward_;
  std::vector<Instruction>& backward_;
  std::vector<Instruction> old_forward_;
  std::map<ValueId, size_t> makers_;                // in the forward
  std::map<ValueId, std::vector<size_t>> readers_;  // likewise
  std::set<size_t> tried_;
  std::vector<MlpRegion> regions_;
  std::map<ValueId, ValueId> wholes_;  // what tiles made, put together
};

}  // namespace

int64_t TileMlps(ProgramBuilder& builder, const std::vector<AdjointRange>& adjoints,
                 std::vector<Instruction>& forward, std::vector<Instruction>& backward) {
  return MlpTiling(builder, adjoints, forward, backward).Run();
}

}  // namespace autosp
