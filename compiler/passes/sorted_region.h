// The part of a graph that computes on rows that were sorted by group (unsort-rows).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "compiler/analysis/index_expr.h"
#include "compiler/ir/graph.h"
#include "compiler/rules/infer_factors.h"

namespace autosp {

// What becomes of a node of a region: most compute the same of rows in their own order.
struct SortedStep {
  enum class Kind : uint8_t {
    kKeep,
    kSort,     // its results are the rows that were sorted, and 0, 1, 2, ...
    kProduct,  // of groups of rows
    kCopies,   // a look-up of rows, each of which is wanted `copies` times in a row
    kIs,       // its result is `operand`, whose rows are where they belong
    kSum,      // adds `copies` rows in a row to each row of argument 0
  };
  Kind kind = Kind::kKeep;
  int64_t copies = 1;
  ValueId operand = {};  // kSort: what is sorted
};
using SortedSteps = std::map<size_t, SortedStep>;  // by node

// All that is computed between the sort at a node and the places where its rows are put back.
// nullopt: the node is no sort of rows that are multiplied in groups, or something sees their
// order.
std::optional<SortedSteps> FindSortedRegion(const Graph& graph, const GraphFactors& factors,
                                            const std::vector<int32_t>& definer,
                                            IndexEvaluator& evaluator, size_t node_index);

}  // namespace autosp
