// What sums of a graph are summed over.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "compiler/ir/graph.h"
#include "compiler/rules/infer_factors.h"

namespace autosp {

// Sizes at export of what values have been summed over: those of dimensions that were constants and
// that the job changes, those that such a dimension is a product of (the batch in batch x length),
// and products with the others of the sum (batch x length x channels). Followed through what keeps
// a sum a sum: a mean, a product with a tensor or something that is not linear has no count left to
// be divided by.
class SummedSizes {
 public:
  // `old_types`: of all values, before the graph got the sizes of the job. Requires: all outlive
  // this.
  SummedSizes(const Graph& graph, const GraphFactors& factors,
              const std::vector<TensorType>& old_types);

  // Requires: the nodes before it have been visited, in order.
  void Visit(const Node& node);
  // Whether the value has been summed over as much, and the job sums over more or less.
  bool IsSummedOver(ValueId value, int64_t size) const;

 private:
  // Elements that are added up, and whether the job changes how many they are.
  using Counts = std::set<std::pair<int64_t, bool>>;

  Counts Of(ValueId value) const;
  struct Root {
    FactorVar factor = -1;
    int64_t size = 0;  // at export, where it was a constant
    bool changes = false;
  };

  void AddRoots(ValueId value, int64_t dim, Counts* counts) const;
  Counts OverDims(ValueId value, const std::vector<int64_t>& dims) const;
  Counts SummedBy(const Node& node) const;

  const Graph& graph_;
  const GraphFactors& factors_;
  std::vector<Root> roots_;
  const std::vector<TensorType>& old_types_;
  std::map<ValueId, Counts> counts_;
};

}  // namespace autosp
