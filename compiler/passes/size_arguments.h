// Arguments that say a size otherwise than in a list of all sizes of the result.
#pragma once

#include "absl/status/status.h"
#include "compiler/ir/graph.h"

namespace autosp {

// Writes the sizes that values have now into such arguments of the node:
//
//   before  %p = linspace(0, 1, 32) : f32[64]       %n = layer_norm(%x, [32]) : f32[2, 6, 64]
//   after   %p = linspace(0, 1, 64) : f32[64]       %n = layer_norm(%x, [64]) : f32[2, 6, 64]
//
// false: it has none, or none that could be another.
bool RewriteSizeArgument(const Graph& graph, Node& node);

// Error: what the node takes and gives has sizes that do not go together, as where a view has
// another number of elements than what it shows.
absl::Status CheckOperandSizes(const Graph& graph, const Node& node);

// Error: as_strided(x, sizes, strides, offset) that reads memory which is not that of the elements
// of `x` in order. `old_type`: of x as exported, whose strides are those of the export.
absl::Status CheckStridedView(const Graph& graph, const Node& node, const TensorType& old_type);

// A batch of one is no size for torch.export: what is put beside tokens of it (a class token) is as
// large only by chance. At another batch it is stretched, as the model's code must do there too.
//
//   before  %c = cat([%token, %x], 1) : f32[4, 9, 6]          %token [1, 1, 6], %x [4, 8, 6]
//   after   %c = cat([expand(%token, [4, 1, 6]), %x], 1) : f32[4, 9, 6]
void StretchParts(Graph& graph);

}  // namespace autosp
