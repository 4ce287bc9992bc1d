// Where a model cuts a tensor into parts and does the same with each of them: what the shape of the
// graph says. Whether the ops take parts for what they are, factors say (chunk_kinds.h).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "compiler/ir/graph.h"

namespace autosp {

// The parts of a tensor in order, or what the same op made of each.
struct ChunkFamily {
  std::vector<ValueId> members;
  int32_t step = -1;  // whose result it is; -1: parts of `whole`
  size_t output = 0;  // of the step's nodes
  ValueId whole = {};
  int64_t dim = 0;          // of `whole`, which the parts lie along
  bool is_counted = false;  // as many parts whatever the size is
};

// The same op for each part: node i reads the members i of families, and else what all of them do.
struct ChunkStep {
  std::vector<size_t> nodes;
};

// A place of a family.
struct ChunkMember {
  size_t family = 0;
  size_t index = 0;
  friend bool operator==(const ChunkMember&, const ChunkMember&) = default;
};

struct ChunkFamilies {
  std::vector<ChunkFamily> families;  // each behind those that it is made of
  std::vector<ChunkStep> steps;
  std::map<ValueId, ChunkMember> places;

  std::optional<ChunkMember> Find(ValueId value) const;
  // Whether these are all members of a family, each once; in order, if asked.
  std::optional<size_t> FindAll(const std::vector<ValueId>& values, bool in_order) const;
};

ChunkFamilies FindChunkFamilies(const Graph& graph);

}  // namespace autosp
