#include "worker/ops/attention_tiles.h"

#include <algorithm>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "compiler/program/attention_workspace.h"

namespace autosp {
namespace {

constexpr int64_t kFar = int64_t{1} << 60;  // a distance that no two tokens have

// A call of the kernel costs as much as about this many rows and keys of a few heads: documents
// that are shorter share masked tiles of up to kMixedRows x kMixedKeys.
constexpr int64_t kShortPiece = 32;
constexpr int64_t kMixedRows = 64;
constexpr int64_t kMixedKeys = 256;

// Documents that lie in so many parts are planned by blocks: each part of the queries would be
// compared with each of the keys.
constexpr int64_t kMaxComparisonsPerToken = 16;

// Part of a run whose tokens are of one document.
struct Piece {
  IndexRun run;
  int64_t doc = 0;
};

std::vector<Piece> PiecesOf(const std::vector<IndexRun>& runs, absl::Span<const int64_t> docs) {
  std::vector<Piece> pieces;
  for (const IndexRun& run : runs) {
    if (docs.empty()) {
      pieces.push_back({run, 0});
      continue;
    }
    for (int64_t begin = 0, end = 0; begin < run.length; begin = end) {
      const int64_t doc = docs[run.global + begin];
      while (end < run.length && docs[run.global + end] == doc) ++end;
      pieces.push_back({{run.local + begin, run.global + begin, end - begin}, doc});
    }
  }
  return pieces;
}

// Queries x keys. Cuts are given as global indices.
struct Rect {
  IndexRun q;
  IndexRun k;

  int64_t q_end() const { return q.global + q.length; }
  int64_t k_end() const { return k.global + k.length; }
  bool empty() const { return q.length <= 0 || k.length <= 0; }
  Rect Rows(int64_t from, int64_t to) const { return {Cut(q, from, to), k}; }
  Rect Keys(int64_t from, int64_t to) const { return {q, Cut(k, from, to)}; }

 private:
  static IndexRun Cut(const IndexRun& run, int64_t from, int64_t to) {
    const int64_t begin = std::max(run.global, from);
    const int64_t end = std::min(run.global + run.length, to);
    return {run.local + begin - run.global, begin, std::max<int64_t>(0, end - begin)};
  }
};

// Plans rectangles within one document: only the distance q - k decides.
class BandPlanner {
 public:
  explicit BandPlanner(const AttentionRule& rule)
      : min_distance_(rule.causal ? 0 : (rule.window > 0 ? 1 - rule.window : -kFar)),
        max_distance_(rule.window > 0 ? rule.window - 1 : kFar),
        rows_(rule.band_rows > 0 ? rule.band_rows : AttentionWindowRows(rule.window)),
        knows_bands_(rule.band_rows > 0) {}

  // Without the rows and keys that take no part.
  Rect Trim(Rect rect) const {
    rect = rect.Rows(rect.k.global + min_distance_, rect.k_end() + max_distance_);
    return rect.Keys(rect.q.global - max_distance_, rect.q_end() - min_distance_);
  }

  bool WindowCuts(const Rect& rect) const {
    return rect.q_end() - 1 - rect.k.global > max_distance_;
  }
  bool OrderCuts(const Rect& rect) const {
    return rect.q.global - rect.k_end() + 1 < min_distance_;
  }

  void Add(const Rect& whole) {
    const Rect rect = Trim(whole);
    if (rect.empty()) return;
    if (WindowCuts(rect)) return knows_bands_ ? AddBands(rect) : AddBand(rect);
    if (OrderCuts(rect)) return AddLower(rect);
    Emit(TileKind::kFull, rect);
  }

  void Emit(TileKind kind, const Rect& rect) {
    if (rect.empty()) return;
    tiles_.push_back({kind, rect.q.local, rect.q.length, rect.k.local, rect.k.length});
  }

  std::vector<AttentionTile> Take() { return std::move(tiles_); }

 private:
  // For kernels that know bands: at most as many queries as keys, as TileKind::kBand wants.
  void AddBands(const Rect& band) {
    for (int64_t from = band.q.global; from < band.q_end();) {
      Rect rect = Trim(band.Rows(from, from + rows_));
      while (!rect.empty() && rect.q.length > rect.k.length) {
        rect = Trim(band.Rows(rect.q.global, rect.q.global + rect.k.length));
      }
      if (rect.empty()) break;  // what is left comes after all keys
      const int64_t ahead = rect.q.global - rect.k.global;
      tiles_.push_back({TileKind::kBand, rect.q.local, rect.q.length, rect.k.local, rect.k.length,
                        max_distance_ - ahead, ahead - min_distance_});
      from = rect.q_end();
    }
  }

  // Keys that the first row sees are seen by all. Of the others, as many rows as there are keys see
  // one more each, and the rows after those see all.
  void AddLower(const Rect& rect) {
    const int64_t diagonal = rect.q.global - min_distance_;  // the last key of the first row
    Emit(TileKind::kFull, rect.Keys(rect.k.global, diagonal));
    const Rect rest = rect.Keys(diagonal, rect.k_end());
    const int64_t end_of_causal = rest.q.global + rest.k.length;
    Emit(TileKind::kCausal, rest.Rows(rest.q.global, end_of_causal));
    Emit(TileKind::kFull, rest.Rows(end_of_causal, rest.q_end()));
  }

  void AddBand(const Rect& band) {
    for (int64_t from = band.q.global; from < band.q_end(); from += rows_) {
      const Rect rect = Trim(band.Rows(from, from + rows_));
      if (rect.empty()) continue;
      if (!WindowCuts(rect)) {
        Add(rect);
        continue;
      }
      // Between these, all rows see all keys.
      const int64_t full_from = rect.q_end() - 1 - max_distance_;
      const int64_t full_to = rect.q.global - min_distance_ + 1;
      if (full_to - full_from < rect.q.length) {
        Emit(TileKind::kMasked, rect);
        continue;
      }
      Emit(TileKind::kMasked, rect.Keys(rect.k.global, full_from));
      Add(rect.Keys(full_from, rect.k_end()));
    }
  }

  const int64_t min_distance_;
  const int64_t max_distance_;
  const int64_t rows_;
  const bool knows_bands_;
  std::vector<AttentionTile> tiles_;
};

// Puts full tiles together that are beside each other, then those that are above each other.
void MergeFullTiles(std::vector<AttentionTile>& tiles) {
  const auto merge = [&tiles](auto key, auto extend) {
    std::ranges::sort(tiles, {}, key);
    size_t last = 0;
    for (size_t i = 1; i < tiles.size(); ++i) {
      const bool both_full =
          tiles[i].kind == TileKind::kFull && tiles[last].kind == TileKind::kFull;
      if (!both_full || !extend(tiles[last], tiles[i])) tiles[++last] = tiles[i];
    }
    if (!tiles.empty()) tiles.resize(last + 1);
  };
  using Tile = AttentionTile;
  merge([](const Tile& t) { return std::tuple(t.q_begin, t.q_size, t.k_begin); },
        [](Tile& a, const Tile& b) {
          const bool joins =
              a.q_begin == b.q_begin && a.q_size == b.q_size && a.k_begin + a.k_size == b.k_begin;
          if (joins) a.k_size += b.k_size;
          return joins;
        });
  merge([](const Tile& t) { return std::tuple(t.k_begin, t.k_size, t.q_begin); },
        [](Tile& a, const Tile& b) {
          const bool joins =
              a.k_begin == b.k_begin && a.k_size == b.k_size && a.q_begin + a.q_size == b.q_begin;
          if (joins) a.q_size += b.q_size;
          return joins;
        });
}

class Planner {
 public:
  Planner(const std::vector<IndexRun>& q_runs, const std::vector<IndexRun>& k_runs,
          const AttentionRule& rule)
      : q_runs_(q_runs), k_runs_(k_runs), rule_(rule), band_(rule) {}

  std::vector<AttentionTile> Plan() {
    q_pieces_ = PiecesOf(q_runs_, rule_.q_docs);
    const std::vector<Piece> k_pieces = PiecesOf(k_runs_, rule_.k_docs);
    for (const Piece& piece : k_pieces) keys_of_[piece.doc].push_back(piece.run);
    if (IsOneCausalTile()) {
      band_.Emit(TileKind::kCausal, {Whole(q_runs_), Whole(k_runs_)});
    } else if (NumComparisons() > kMaxComparisonsPerToken * (Length(q_runs_) + Length(k_runs_))) {
      PlanBlocks();
    } else {
      PlanPieces();
    }
    std::vector<AttentionTile> tiles = band_.Take();
    MergeFullTiles(tiles);
    std::ranges::sort(tiles, {}, [](const AttentionTile& tile) {
      return std::tuple(tile.q_begin, tile.k_begin);
    });
    return tiles;
  }

 private:
  static int64_t Length(const std::vector<IndexRun>& runs) {
    int64_t length = 0;
    for (const IndexRun& run : runs) length += run.length;
    return length;
  }

  // All runs as if they were one; only its local part means anything.
  static IndexRun Whole(const std::vector<IndexRun>& runs) {
    return {runs.front().local, runs.front().global, Length(runs)};
  }

  // Queries and keys are the same tokens in ascending order: then local order is causal order,
  // also over the gap between the blocks of a zigzag shard.
  bool IsOneCausalTile() const {
    if (!rule_.causal || q_runs_.empty() || q_runs_ != k_runs_) return false;
    for (size_t i = 1; i < q_runs_.size(); ++i) {
      const IndexRun& before = q_runs_[i - 1];
      if (q_runs_[i].local != before.local + before.length) return false;
      if (q_runs_[i].global < before.global + before.length) return false;
    }
    const int64_t span = q_runs_.back().global + q_runs_.back().length - q_runs_.front().global;
    if (rule_.window > 0 && span > rule_.window) return false;
    return keys_of_.size() == 1 && std::ranges::all_of(q_pieces_, [this](const Piece& piece) {
             return keys_of_.contains(piece.doc);
           });
  }

  int64_t NumComparisons() const {
    int64_t count = 0;
    for (const Piece& piece : q_pieces_) {
      const auto found = keys_of_.find(piece.doc);
      if (found != keys_of_.end()) count += static_cast<int64_t>(found->second.size());
    }
    return count;
  }

  void PlanBlocks() {
    for (const IndexRun& q : q_runs_) {
      for (const IndexRun& k : k_runs_) {
        for (int64_t row = q.global; row < q.global + q.length; row += kAttentionBlock) {
          for (int64_t key = k.global; key < k.global + k.length; key += kAttentionBlock) {
            const Rect block =
                Rect{q, k}.Rows(row, row + kAttentionBlock).Keys(key, key + kAttentionBlock);
            band_.Emit(TileKind::kMasked, band_.Trim(block));
          }
        }
      }
    }
  }

  void PlanPieces() {
    for (const Piece& piece : q_pieces_) {
      const std::vector<IndexRun> keys = KeysOf(piece);
      if (keys.empty()) continue;
      const auto is_short = [](const IndexRun& run) { return run.length < kShortPiece; };
      if (!is_short(piece.run) || !std::ranges::all_of(keys, is_short)) {
        FlushMixed();
        for (const IndexRun& k : keys) band_.Add({piece.run, k});
        continue;
      }
      const int64_t end = piece.run.local + piece.run.length;
      if (!mixed_.empty() && end - mixed_.front().local > kMixedRows) FlushMixed();
      mixed_.push_back(piece.run);
      mixed_keys_.insert(mixed_keys_.end(), keys.begin(), keys.end());
    }
    FlushMixed();
  }

  // The keys of the document of `piece` that order and window leave it.
  std::vector<IndexRun> KeysOf(const Piece& piece) const {
    std::vector<IndexRun> keys;
    const auto found = keys_of_.find(piece.doc);
    if (found == keys_of_.end()) return keys;
    for (const IndexRun& k : found->second) {
      if (!band_.Trim({piece.run, k}).empty()) keys.push_back(k);
    }
    return keys;
  }

  // Masked tiles for short documents that follow each other.
  void FlushMixed() {
    if (mixed_.size() == 1) {
      for (const IndexRun& k : mixed_keys_) band_.Add({mixed_.front(), k});
    } else if (!mixed_.empty()) {
      IndexRun rows = mixed_.front();
      rows.length = mixed_.back().local + mixed_.back().length - rows.local;
      std::ranges::sort(mixed_keys_, {}, &IndexRun::local);
      IndexRun keys = mixed_keys_.front();
      for (const IndexRun& next : mixed_keys_) {
        const int64_t gap = next.local - (keys.local + keys.length);
        const int64_t length = next.local + next.length - keys.local;
        if (gap < kShortPiece && length <= kMixedKeys) {
          keys.length = std::max(keys.length, length);
          continue;
        }
        band_.Emit(TileKind::kMasked, {rows, keys});
        keys = next;
      }
      band_.Emit(TileKind::kMasked, {rows, keys});
    }
    mixed_.clear();
    mixed_keys_.clear();
  }

  const std::vector<IndexRun>& q_runs_;
  const std::vector<IndexRun>& k_runs_;
  const AttentionRule& rule_;
  BandPlanner band_;
  std::vector<Piece> q_pieces_;
  std::unordered_map<int64_t, std::vector<IndexRun>> keys_of_;  // by document
  std::vector<IndexRun> mixed_;                                 // short pieces, not yet planned
  std::vector<IndexRun> mixed_keys_;
};

}  // namespace

std::vector<IndexRun> RunsOf(absl::Span<const int64_t> global_indices, int64_t size) {
  std::vector<IndexRun> runs;
  for (size_t i = 0; i < global_indices.size(); ++i) {
    const int64_t global = global_indices[i];
    const auto local = static_cast<int64_t>(i);
    if (global < 0 || global >= size) continue;
    const bool follows = !runs.empty() && runs.back().local + runs.back().length == local &&
                         runs.back().global + runs.back().length == global;
    if (follows) {
      ++runs.back().length;
    } else {
      runs.push_back({local, global, 1});
    }
  }
  return runs;
}

bool AttentionRule::Allows(int64_t q, int64_t k) const {
  if (q < 0 || k < 0 || (causal && k > q)) return false;
  if (window > 0 && (q - k >= window || k - q >= window)) return false;
  return (q_docs.empty() ? 0 : q_docs[q]) == (k_docs.empty() ? 0 : k_docs[k]);
}

std::vector<AttentionTile> PlanTiles(const std::vector<IndexRun>& q_runs,
                                     const std::vector<IndexRun>& k_runs,
                                     const AttentionRule& rule) {
  return Planner(q_runs, k_runs, rule).Plan();
}

std::vector<AttentionTile> CutTiles(absl::Span<const AttentionTile> tiles, int64_t max_rows,
                                    int64_t max_keys) {
  std::vector<AttentionTile> cut;
  for (const AttentionTile& tile : tiles) {
    if (tile.kind == TileKind::kMasked || tile.kind == TileKind::kBand) {
      cut.push_back(tile);
      continue;
    }
    const bool is_causal = tile.kind == TileKind::kCausal;
    for (int64_t row = 0; row < tile.q_size; row += max_rows) {
      const int64_t rows = std::min(max_rows, tile.q_size - row);
      // On the diagonal of a causal tile its parts are causal; before it they are full.
      const int64_t num_full = is_causal ? row : tile.k_size;
      for (int64_t key = 0; key < num_full; key += max_keys) {
        cut.push_back({TileKind::kFull, tile.q_begin + row, rows, tile.k_begin + key,
                       std::min(max_keys, num_full - key)});
      }
      if (!is_causal) continue;
      cut.push_back({TileKind::kCausal, tile.q_begin + row, rows, tile.k_begin + row, rows});
    }
  }
  return cut;
}

std::vector<AttentionTile> CutFewTokens(absl::Span<const AttentionTile> tiles, int64_t few,
                                        int64_t max_tokens) {
  std::vector<AttentionTile> cut;
  for (const AttentionTile& tile : tiles) {
    if (std::min(tile.q_size, tile.k_size) >= few) {
      cut.push_back(tile);
      continue;
    }
    const std::vector<AttentionTile> parts = CutTiles({&tile, 1}, max_tokens, max_tokens);
    cut.insert(cut.end(), parts.begin(), parts.end());
  }
  return cut;
}

int64_t NumPairs(absl::Span<const AttentionTile> tiles) {
  int64_t pairs = 0;
  for (const AttentionTile& tile : tiles) {
    pairs += tile.kind == TileKind::kCausal ? tile.q_size * (tile.q_size + 1) / 2
                                            : tile.q_size * tile.k_size;
  }
  return pairs;
}

}  // namespace autosp
