// Rows that a model makes for what it counts.
#pragma once

#include "compiler/ir/graph.h"
#include "compiler/rules/infer_factors.h"

namespace autosp {

// torch.zeros(B, H).index_add(0, torch.arange(B), x): rows that are made, of which the model names
// all, one for each place of a dimension, are as many as that has places. So are blocks of rows, as
// of torch.zeros(6 * B, H).index_add(0, (6 * torch.arange(B)[:, None] + kinds).flatten(), x). Of
// sizes that were constants at export nothing else says so.
//
// Requires: the graph has the types of the export.
void FollowCountedRows(const Graph& graph, GraphFactors& factors);

}  // namespace autosp
