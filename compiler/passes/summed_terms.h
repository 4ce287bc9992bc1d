// What a chain of additions adds up (loss = loss + a; loss = loss + b).
#pragma once

#include <vector>

#include "compiler/ir/graph.h"

namespace autosp {

struct SummedTerm {
  Argument value;  // a value, or a number
  bool is_negative = false;
  bool IsZero() const;
};

// a + b or a - b, of one type.
bool IsPlainSum(const Graph& graph, const Node& node);

// Requires: the graph outlives it.
class SummedTerms {
 public:
  explicit SummedTerms(const Graph& graph);

  // Whether the node adds, and its result is not read by another addition alone.
  bool IsRoot(size_t node) const;
  std::vector<SummedTerm> Of(size_t node) const;

 private:
  bool Adds(const Node& node) const;
  void Collect(const Node& node, bool is_negative, std::vector<SummedTerm>* terms) const;

  const Graph& graph_;
  std::vector<int32_t> definer_;
  std::vector<int32_t> adder_;  // by value: the node that adds it, if that is its only use; or -1
};

}  // namespace autosp
