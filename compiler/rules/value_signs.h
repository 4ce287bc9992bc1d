// What is known of the sign of the padding of each value of a graph, from the ops that make it.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "compiler/ir/graph.h"

namespace autosp {

enum class Sign : uint8_t {
  kAny,          // in this order: what is known grows
  kNonNegative,  // not below zero
  kPositive,
};

struct PaddingSigns {
  std::vector<Sign> signs;    // by graph value: what padding holds
  std::vector<bool> is_same;  // by graph value: padding holds what each token holds
};

// `is_padded`: values that run over the padded tokens. Others are the same for all tokens, and so
// is what is made of them alone; of their own signs nothing is taken. Of real numbers: that exp of
// a number may be too small for its type, and be zero, is left aside. Of inputs, parameters and ops
// that are not known: any.
PaddingSigns SignsInPadding(const Graph& graph, const std::function<bool(ValueId)>& is_padded);

}  // namespace autosp
