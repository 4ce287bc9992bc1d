// Which values of a graph may hold infinities, though every number that tokens read is finite.
#pragma once

#include <vector>

#include "compiler/ir/graph.h"

namespace autosp {

// By graph value: a constant of the model may be infinite, as may what is made of constants alone
// or with one. Tokens may leave its infinities aside, where padding that a condition or a place
// chooses for would take them. It holds all that the checker doubts
// (compiler/checker/placement_rules.cc).
std::vector<bool> ValuesOfInfinities(const Graph& graph);

}  // namespace autosp
