// Which values training changes.
#pragma once

#include <vector>

#include "compiler/ir/graph.h"

namespace autosp {

// By value: whether a parameter's gradient may come through it. A frozen parameter counts, which
// costs memory and changes no number.
std::vector<bool> DependsOnParameters(const Graph& graph);

}  // namespace autosp
