// Random training graphs, each made of blocks behind an embedding and before a loss.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/random_graphs/graph_maker.h"
#include "tests/random_graphs/run_case.h"

namespace autosp {

// What a seed stands for; each block makes its own choices from its own seed, so that one may be
// left out and the others stay.
struct GraphRecipe {
  struct Part {
    NamedBlock block;
    uint64_t seed = 0;
  };

  GraphSizes sizes;
  std::vector<Part> blocks;
  Part loss;
  bool is_sequence_first = false;  // the ids come as [S, B]
  Mesh mesh;
  Recompute recompute = Recompute::kNone;
  Tiling tiling = Tiling::kNone;
  int64_t job_batch = 0;
  int64_t job_seq_len = 0;
  uint64_t seed = 0;

  std::string ToString() const;  // "embed, conv, mlp, cross_entropy"
};

GraphRecipe RandomRecipe(uint64_t seed);
RandomCase MakeCase(const GraphRecipe& recipe);

}  // namespace autosp
