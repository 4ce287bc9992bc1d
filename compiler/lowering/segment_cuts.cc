#include "compiler/lowering/segment_cuts.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace autosp {
namespace {

constexpr double kLimitStep = 1.1;
constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

// A place to cut, and what crosses it.
struct Position {
  size_t before = 0;                                // the step after the cut
  int64_t remade_bytes = 0;                         // of all steps before it
  std::vector<std::pair<size_t, int64_t>> crosses;  // (made at, bytes), latest first
};

// The first and the last position are the ends of the list, which are always "cut".
std::vector<Position> FindPositions(size_t num_steps, const std::vector<KeptRange>& ranges,
                                    const std::vector<int64_t>& remade_bytes) {
  std::vector<int64_t> change(num_steps + 1, 0);
  for (const KeptRange& range : ranges) {
    if (range.last_read <= range.made) continue;
    change[range.made + 1] += range.bytes;
    change[range.last_read + 1] -= range.bytes;
  }
  std::vector<int64_t> crossing(num_steps + 1, 0);
  for (size_t i = 1; i <= num_steps; ++i) crossing[i] = crossing[i - 1] + change[i];
  std::vector<Position> positions{{}};
  int64_t remade = 0;
  for (size_t i = 1; i < num_steps; ++i) {
    remade += remade_bytes[i - 1];
    const bool is_narrow = crossing[i] <= crossing[i - 1] && crossing[i] <= crossing[i + 1];
    // Else a cut after the next step is the same.
    const bool is_last = remade_bytes[i] > 0 || crossing[i] < crossing[i + 1];
    if (is_narrow && is_last) {
      positions.push_back({.before = i, .remade_bytes = remade, .crosses = {}});
    }
  }
  remade += num_steps > 0 ? remade_bytes[num_steps - 1] : 0;
  positions.push_back({.before = num_steps, .remade_bytes = remade, .crosses = {}});
  for (const KeptRange& range : ranges) {
    auto first = std::ranges::upper_bound(positions, range.made, {}, &Position::before);
    for (; first != positions.end() && first->before <= range.last_read; ++first) {
      first->crosses.emplace_back(range.made, range.bytes);
    }
  }
  for (Position& position : positions) std::ranges::sort(position.crosses, std::greater<>());
  return positions;
}

struct Cuts {
  int64_t kept_bytes = kNever;
  std::vector<size_t> before;
};

// The cheapest cuts with at most `limit` bytes made again between two of them.
Cuts CutWithin(const std::vector<Position>& positions, int64_t limit) {
  std::vector<int64_t> kept(positions.size(), kNever);  // of the best cuts that end here
  std::vector<size_t> previous(positions.size(), 0);
  kept[0] = 0;
  for (size_t to = 1; to < positions.size(); ++to) {
    const Position& end = positions[to];
    int64_t bytes = 0;  // that cross here, and were made after the cut before
    auto next = end.crosses.begin();
    for (size_t from = to; from-- > 0;) {
      const Position& begin = positions[from];
      if (end.remade_bytes - begin.remade_bytes > limit) break;
      for (; next != end.crosses.end() && next->first >= begin.before; ++next) {
        bytes += next->second;
      }
      if (kept[from] == kNever || kept[from] + bytes >= kept[to]) continue;
      kept[to] = kept[from] + bytes;
      previous[to] = from;
    }
  }
  Cuts cuts{.kept_bytes = kept.back(), .before = {}};
  if (cuts.kept_bytes == kNever) return cuts;
  for (size_t at = previous.back(); at > 0; at = previous[at]) {
    cuts.before.push_back(positions[at].before);
  }
  std::ranges::reverse(cuts.before);
  return cuts;
}

}  // namespace

std::vector<size_t> CutSegments(size_t num_steps, const std::vector<KeptRange>& ranges,
                                const std::vector<int64_t>& remade_bytes, double kept_weight) {
  const std::vector<Position> positions = FindPositions(num_steps, ranges, remade_bytes);
  const auto all_bytes = static_cast<double>(positions.back().remade_bytes);
  Cuts best{.kept_bytes = 0, .before = {}};
  double least = all_bytes;
  // A segment of at most `limit`, from all of it down to where no cuts are that fine.
  for (double limit = all_bytes / kLimitStep; limit >= 1; limit /= kLimitStep) {
    Cuts cuts = CutWithin(positions, static_cast<int64_t>(limit));
    if (cuts.kept_bytes == kNever) break;
    const double kept = kept_weight * static_cast<double>(cuts.kept_bytes);
    if (kept >= least) break;
    if (kept + limit >= least) continue;
    least = kept + limit;
    best = std::move(cuts);
  }
  return best.before;
}

}  // namespace autosp
