// Where a value of the graph lives on the mesh.
#pragma once

#include <vector>

#include "compiler/program/program.h"
#include "compiler/rules/factor_table.h"

namespace autosp {

// Consecutive factors of one dimension, split together as if they were one: the sequence, or heads
// as kv_heads x copies. Empty: nothing is split.
using FactorRun = std::vector<FactorVar>;

// The batch is split over accum and dp, or whole; one run is split over sp, or none. Around ring
// attention with heads split as well, sp is taken apart: the sequence over ring, heads over
// ulysses. A value that holds none of them is replicated, except on the axes of `partial`.
struct Placement {
  bool batch_split = true;  // no meaning for values without a batch factor
  FactorRun run = {};       // over sp, or over ulysses alone beside `ring_run`; in the value's dims
  FactorRun ring_run = {};  // over ring alone
  Partial partial;
  friend bool operator==(const Placement&, const Placement&) = default;
};

}  // namespace autosp
