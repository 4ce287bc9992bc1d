// Which dimensions of a graph stand for tokens.
#pragma once

#include <vector>

#include "compiler/rules/infer_factors.h"

namespace autosp {

// Tokens are what ranks share first, also where they do not divide their number: shards of tokens
// are padded, shards of features never are. Each is a product of factors that is split as one.
struct TokenFactors {
  // Those that a ring may split: the sequence of the inputs or, where no attention has it, those of
  // the most expensive attention (patches behind a class token, frames that a convolution has
  // thinned out). Empty: there are none.
  FactorDim main;
  // Of other attention, of inputs, and what is left of tokens where some are cut off.
  std::vector<FactorDim> others;
};

TokenFactors TokenFactorsOf(const Graph& graph, const GraphFactors& factors);

}  // namespace autosp
