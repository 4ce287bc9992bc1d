// Makes a failing case small.
#pragma once

#include <functional>

#include "tests/random_graphs/random_graph.h"
#include "tests/random_graphs/run_case.h"

namespace autosp {

// Whether a case still fails as the first one did.
using StillFails = std::function<bool(const RandomCase&)>;

// Leaves out blocks, then takes a smaller mesh and smaller sizes, then replaces nodes by operands
// or earlier values of the same type, for as long as it fails. Requires: the case of `recipe` does.
RandomCase ShrinkCase(const GraphRecipe& recipe, const StillFails& still_fails);

}  // namespace autosp
