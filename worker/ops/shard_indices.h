// Which global elements a rank holds of a sharded factor.
#pragma once

#include <cstdint>
#include <vector>

#include "compiler/program/program.h"

namespace autosp {

// Places on the mesh axes: of a rank, and `accum` and `tile` from the loops over them.
struct ShardPlace {
  MeshCoordinate rank;
  int64_t micro_step = 0;
  int64_t tile = 0;

  int64_t IndexOn(const AxisList& axes, const Mesh& mesh) const;  // the last axis varies fastest
};

// The global index of each local element of `factor`, in local order; as many as LocalSize(factor).
// Indices from the size of the factor on are padding.
std::vector<int64_t> GlobalIndices(const Program& program, const DimFactor& factor,
                                   const ShardPlace& place);

// The same for a whole dimension, a product of factors with the first one major; -1 where any of
// its factors is padding.
std::vector<int64_t> GlobalIndices(const Program& program, const ProgramDim& dim,
                                   const ShardPlace& place);

// The size of a dimension when nothing is sharded and nothing padded.
int64_t GlobalSize(const Program& program, const ProgramDim& dim);

}  // namespace autosp
