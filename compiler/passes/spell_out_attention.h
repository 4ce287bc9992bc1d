// Attention as the ops that the kernels fuse, for what no kernel does: dropped weights, and a mask
// that is trained.
#pragma once

#include "compiler/passes/graph_rewriter.h"

namespace autosp {

struct SpelledAttention {
  ValueId weights;  // softmax(q k^T * scale + mask)  [B, N, S, T]
  ValueId value;    // [B, N, T, H], each key head once for each of its query heads
};

// The weights of `node`, an aten.scaled_dot_product_attention.
SpelledAttention SpellOutWeights(GraphRewriter& rewriter, const Node& node);

// weights x value, the result of `node`.
ValueId EmitWeighted(GraphRewriter& rewriter, const Node& node, ValueId weights, ValueId value);

}  // namespace autosp
