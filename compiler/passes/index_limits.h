// Which places of a dimension a graph looks up, as far as its literals say.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "compiler/passes/pass.h"

namespace autosp {

// Places of a dimension of a value that a node reads or writes. Of one-hot vectors the value is the
// result, and the dimension that of its classes.
struct LookUp {
  ValueId table;
  int64_t dim = 0;
  ValueId index;
};
std::vector<LookUp> LookUpsOf(const Graph& graph, const Node& node);

// The greatest element that a literal leaves, and the node that has it: 3 of remainder(%ids, 4), of
// clamp(%ids, max=3), of where(%ids < 4, %ids, 0), and 5 of any of them after + 2.
struct IndexLimit {
  int64_t greatest = 0;
  const Node* node = nullptr;
};

// Follows limits from one node to the next. Positions, counts and elements of inputs have none, as
// no literal says how far they go.
class IndexLimits {
 public:
  // Requires: both outlive this.
  IndexLimits(const Graph& graph, const PassContext& context);

  // Requires: the nodes before it have been visited, in order, with the literals of the export.
  void Visit(const Node& node);
  std::optional<IndexLimit> Of(ValueId id) const;

 private:
  // Where a condition holds, or does not, the value is at most this.
  struct Bound {
    ValueId value;
    int64_t greatest = 0;
    bool where = true;
  };

  std::optional<IndexLimit> Find(const Node& node) const;
  std::optional<IndexLimit> Cut(const Node& node) const;
  std::optional<IndexLimit> Chosen(const Node& node) const;
  std::optional<IndexLimit> Branch(const Node& node, size_t arg, ValueId condition,
                                   bool where) const;
  std::optional<IndexLimit> Shifted(const Node& node) const;
  std::optional<int64_t> NumberAt(const Node& node, size_t arg) const;
  std::optional<Bound> BoundOf(const Node& node) const;
  // Of numbers between 0 and 1, and what multiples of them are below.
  std::optional<IndexLimit> Drawn(const Node& node) const;

  const Graph& graph_;
  std::map<ValueId, IndexLimit> limits_;
  std::map<ValueId, IndexLimit> drawn_;   // what floating numbers are below
  std::map<ValueId, int64_t> constants_;  // all of whose elements are one number
  std::map<ValueId, Bound> bounds_;       // by condition
};

}  // namespace autosp
