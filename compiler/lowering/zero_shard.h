// Where ZeRO puts what belongs to a parameter: its states, its gradient, itself.
//
// A value is split along one dimension, over as many ranks as divide it; data, ring and ulysses
// ranks alike, since all of them hold the same parameters.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "compiler/program/program.h"

namespace autosp {

struct ZeroShard {
  size_t dim = 0;
  AxisList axes;
};

// The most ranks that divide a dimension, and the first such dimension, whose parts are contiguous
// most often. nullopt: no two ranks divide any.
std::optional<ZeroShard> ChooseZeroShard(const Program& program,
                                         const std::vector<ProgramDim>& dims);

// The dims of a rank's part. Requires: `dims` are whole.
std::vector<ProgramDim> ShardedDims(std::vector<ProgramDim> dims, const ZeroShard& shard);

}  // namespace autosp
