// The relations between sizes that an archive was exported with, over the sizes of its inputs.
#pragma once

#include <vector>

#include "compiler/import/exported_program.h"
#include "compiler/ir/graph.h"
#include "compiler/ir/size_guard.h"

namespace autosp {

// Those that stand beside the graph (guards_code), and those that are asserted in it, also where
// they cannot be read.
std::vector<SizeGuard> ReadGuards(const exported::Program& program, const Graph& graph);

}  // namespace autosp
