// What a rule sees of a node: typed access to its arguments, and the factors of its operands.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/ir/graph.h"
#include "compiler/rules/factor_table.h"

namespace autosp {

// Factors of the values of a graph, by value index.
using ValueFactors = std::vector<FactorDims>;

class OpContext {
 public:
  OpContext(const Graph& graph, const Node& node, FactorTable& table, const ValueFactors& factors)
      : graph_(graph), node_(node), table_(table), factors_(factors) {}
  // For arguments alone. Requires: nobody asks for factors.
  OpContext(const Graph& graph, const Node& node);

  const Graph& graph() const { return graph_; }
  const Node& node() const { return node_; }
  FactorTable& table() const { return table_; }

  // Arguments by position. A missing or None argument is an invalid id, nullopt or an empty list;
  // an argument of another kind is a bug of the importer and reads as missing.
  ValueId Tensor(size_t arg) const;
  std::vector<ValueId> Tensors(size_t arg) const;  // None stays as an invalid id
  std::optional<int64_t> Int(size_t arg) const;
  std::optional<SymInt> Sym(size_t arg) const;
  IntList Ints(size_t arg) const;  // a single int counts as a list of one
  std::optional<bool> Bool(size_t arg) const;
  bool Has(size_t arg) const;

  const FactorDims& Factors(ValueId id) const { return factors_[id.index]; }
  const TensorType& Type(ValueId id) const { return graph_.type(id); }
  const TensorType& ResultType(size_t result = 0) const;
  std::vector<int64_t> ResultSizes(size_t result = 0) const;
  int64_t Rank(ValueId id) const { return Type(id).rank(); }

  // A dimension argument counted from the front. Default where the argument is absent.
  int64_t Dim(size_t arg, int64_t rank, int64_t absent = 0) const;
  // A list of dimension arguments counted from the front; all dimensions where absent or empty.
  std::vector<int64_t> DimList(size_t arg, int64_t rank) const;

 private:
  const Graph& graph_;
  const Node& node_;
  FactorTable& table_;
  const ValueFactors& factors_;
};

// Names of operands and results in a node's argument list, shared by rules and lowering.
std::vector<int64_t> Values(const std::vector<SymInt>& sizes);

}  // namespace autosp
