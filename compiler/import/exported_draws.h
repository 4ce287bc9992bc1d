// Draws of random numbers as PyTorch defines them, for the graph that plans are held against.
//
// Import writes draws anew for plans (random_draws.h). What it misreads would be in a plan and in
// all that is made of the same graph: here each op is written a second time, from PyTorch's
// documentation and without a look at its uses, and takes the same uniform numbers.
#pragma once

#include <cstdint>

#include "compiler/import/random_draws.h"
#include "compiler/ir/graph.h"

namespace autosp {

// Writes the draws of a graph as exported by autosp.uniform and ATen's ops; dropouts and attention
// that drop get the number of their mask. `draws`: those that the plan makes. What should draw, and
// does not in plans, gets numbers of its own. Returns how many numbers there are then.
int64_t WriteDraws(Graph& graph, const GraphDraws& draws);

}  // namespace autosp
