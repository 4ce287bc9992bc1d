// Which rectangles of queries x keys attention has to compute: planned on indices alone.
//
// A rank holds some of the queries and some of the keys, in runs of consecutive global indices. A
// query may attend to a key by their global indices: causal order, a sliding window, documents.
// The plan covers every pair that may attend by exactly one tile, leaves out what it can, and has a
// mask only where a border cuts through a tile:
//
//   causal, the same tokens    one causal tile
//   causal, earlier tokens     one full tile; of later tokens: none
//   window w                   for each few rows: a masked corner, a full middle, a causal corner;
//                              or for each many rows: a band
//   documents                  the above for each pair of parts of one document
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace autosp {

// Local tokens [local, local + length) have the global indices [global, global + length).
struct IndexRun {
  int64_t local = 0;
  int64_t global = 0;
  int64_t length = 0;
  friend bool operator==(const IndexRun&, const IndexRun&) = default;
};

// The runs of a shard with these global indices, in local order. Padding, which are indices from
// `size` on and negative ones, is in no run.
std::vector<IndexRun> RunsOf(absl::Span<const int64_t> global_indices, int64_t size);

// Who may attend to whom. `q` and `k` are global indices; of negative ones, padding, none may.
struct AttentionRule {
  bool causal = false;
  int64_t window = 0;  // 0: none; else q - k < window, and k - q < window
  // Documents by global index: of the query and of the key, which must be one. Empty: all are in
  // document 0.
  absl::Span<const int64_t> q_docs = {};
  absl::Span<const int64_t> k_docs = {};
  // Positive: the kernel knows bands, and a window is planned as bands of at most so many queries,
  // not as tiles that have masks.
  int64_t band_rows = 0;

  bool Allows(int64_t q, int64_t k) const;
};

enum class TileKind : uint8_t {
  kFull,    // every query attends to every key
  kCausal,  // as many queries as keys; query i attends to keys 0 to i of the tile
  kBand,    // at most as many queries as keys; query i attends to keys i - `before` to i + `after`
  kMasked,  // AttentionRule decides for each pair
};

struct AttentionTile {
  TileKind kind = TileKind::kFull;
  int64_t q_begin = 0;  // local
  int64_t q_size = 0;
  int64_t k_begin = 0;
  int64_t k_size = 0;
  int64_t before = 0;  // of a band
  int64_t after = 0;
  friend bool operator==(const AttentionTile&, const AttentionTile&) = default;
};

// In order of queries, then keys. Tiles do not overlap. A masked tile may span tokens that are in
// no run.
std::vector<AttentionTile> PlanTiles(const std::vector<IndexRun>& q_runs,
                                     const std::vector<IndexRun>& k_runs,
                                     const AttentionRule& rule);

// The same pairs in tiles of at most `max_rows` queries and `max_keys` keys. Bands and masked tiles
// are small as they are. Requires: max_rows <= max_keys.
std::vector<AttentionTile> CutTiles(absl::Span<const AttentionTile> tiles, int64_t max_rows,
                                    int64_t max_keys);

// The same, where those of less than `few` queries or keys have at most `max_tokens` of the others.
std::vector<AttentionTile> CutFewTokens(absl::Span<const AttentionTile> tiles, int64_t few,
                                        int64_t max_tokens);

// Pairs that are computed: half of a causal tile, all of every other.
int64_t NumPairs(absl::Span<const AttentionTile> tiles);

}  // namespace autosp
