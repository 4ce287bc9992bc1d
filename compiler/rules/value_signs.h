// What is known of the sign of each value of a graph, from the ops that make it.
#pragma once

#include <cstdint>
#include <vector>

#include "compiler/ir/graph.h"

namespace autosp {

enum class Sign : uint8_t {
  kAny,          // in this order: what is known grows
  kNonNegative,  // not below zero
  kPositive,
};

// By graph value. Of real numbers: that exp of a number may be too small for its type, and be zero,
// is left aside. Of inputs, parameters and ops that are not known: any.
std::vector<Sign> ValueSigns(const Graph& graph);

}  // namespace autosp
