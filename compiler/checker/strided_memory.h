// The places in memory that an alias claims, against those that its operand gives.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compiler/program/program.h"

namespace autosp::checker {

struct StridedMemory {
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  LinearExpr offset;
};

StridedMemory MemoryOf(const Program& program, ValueId id);

// Whether the elements of both, in order, lie at the same places.
bool SamePlaces(const StridedMemory& a, const StridedMemory& b);

// Whether every element lies within `size` elements, at any place of the mesh.
bool StaysWithin(const StridedMemory& memory, const Mesh& mesh, int64_t size);

}  // namespace autosp::checker
