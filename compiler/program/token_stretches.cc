#include "compiler/program/token_stretches.h"

#include <algorithm>

namespace autosp {

std::optional<TokenStretches> TokenStretchesOf(const Program& program, const ProgramDim& dim) {
  TokenStretches stretches;
  stretches.length = program.LocalSize(dim);
  stretches.num_valid = stretches.length;
  for (size_t i = 0; i < dim.size(); ++i) {
    const bool is_split = program.mesh.size(dim[i].axes) > 1;
    if (dim[i].padded || (is_split && i > 0)) return std::nullopt;
  }
  if (dim.empty() || program.mesh.size(dim[0].axes) == 1) return stretches;
  const DimFactor& major = dim[0];
  for (Axis axis : major.axes) {
    if (program.mesh.size(axis) > 1) stretches.axes.push_back(axis);
  }
  const bool is_named = major.factor.valid();
  const int64_t size = is_named ? program.factors[major.factor.index].size : major.size;
  // A shard of each ulysses member begins and ends in the middle of a block or at its border: its
  // halves are consecutive whichever of these it is.
  const bool is_zigzag = is_named &&
                         program.factors[major.factor.index].layout == Layout::kZigzag &&
                         stretches.axes.front() == Axis::kRing;
  stretches.num_shards = program.mesh.size(stretches.axes);
  stretches.per_shard = is_zigzag ? 2 : 1;
  stretches.num_valid = stretches.length / program.LocalSize(major) * size;
  stretches.length /= stretches.per_shard;
  return stretches;
}

}  // namespace autosp
