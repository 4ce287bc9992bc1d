// Which values count the places of a dimension: positions along it, and sums over it.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <vector>

#include "compiler/ir/graph.h"

namespace autosp {

// Sizes at export of what the content of a value grows with.
struct Dependence {
  std::set<int64_t> places;  // indices along such dimensions, and counts over them
  std::set<int64_t> sums;    // sums of data over them: only a factor of one can be a size
  bool empty() const { return places.empty() && sums.empty(); }
  void Add(const Dependence& other);
};

// The elements of the first operand, elsewhere or as another type.
bool MovesElements(const Node& node);
// Those of them that leave none out.
bool KeepsElements(const Node& node);
// Arithmetic whose result still grows with a size that an operand grows with, and reductions.
bool GrowsWithOperands(const Node& node);

// Only of dimensions that were constants at export and that the job changes: of others nothing has
// to be known. What has gone through something that is not linear (a product of matrices, a
// softmax, a look-up of a table) is not followed.
class SizeDependence {
 public:
  // `old_types`: of all values, before the graph got the sizes of the job. Requires: both outlive
  // this.
  SizeDependence(const Graph& graph, const std::vector<TensorType>& old_types);

  const Dependence& Of(ValueId id) const { return values_[id.index]; }
  Dependence OfOperands(const Node& node) const;
  // The size at export, if it was a constant and the job has another.
  std::optional<int64_t> ChangedSize(ValueId id, int64_t dim) const;
  // Whether no input has a part in it.
  bool IsGenerated(ValueId id) const { return is_generated_[id.index]; }

 private:
  void Visit(const Node& node);
  Dependence Created(const Node& node, size_t output) const;
  Dependence SummedOver(const Node& node) const;
  std::set<int64_t> Contracted(const Node& node) const;
  std::set<int64_t> ChangedSizes(ValueId id, std::vector<int64_t> dims) const;
  bool KeepsDependence(const Node& node) const;

  const Graph& graph_;
  const std::vector<TensorType>& old_types_;
  std::vector<Dependence> values_;
  std::vector<bool> is_generated_;
  std::vector<bool> is_count_;  // whole numbers, as integers or cast from those
};

}  // namespace autosp
