// Where to cut a list of steps so that little has to be kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace autosp {

// Memory that step `made` makes and that steps up to `last_read` read.
struct KeptRange {
  size_t made = 0;
  size_t last_read = 0;
  int64_t bytes = 0;
};

// The positions before which a list of `num_steps` steps is cut, in order. `remade_bytes[i]` is
// what step i makes that is not kept anyway. The cuts minimise
//
//   kept_weight * (sum of the bytes of ranges that cross a cut, each counted once)
//   + the most bytes of `remade_bytes` between two cuts
//
// to within 10 % of the second term. Time: O(ranges + positions x longest segment), for a few dozen
// limits on the segment; only positions where the bytes that cross are no more than on either side
// are tried.
std::vector<size_t> CutSegments(size_t num_steps, const std::vector<KeptRange>& ranges,
                                const std::vector<int64_t>& remade_bytes, double kept_weight = 1);

}  // namespace autosp
