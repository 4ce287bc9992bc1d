// Rewrites what nodes say of sizes after factors got others: literal sizes are read off the factors
// of the result.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "compiler/ir/graph.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/rules/infer_factors.h"

namespace autosp {

// Gives the values of a graph the sizes of their factors; whether any changed.
bool SetSizes(Graph& graph, const GraphFactors& factors);

class SizeRewriter {
 public:
  // `old_types`: of all values, before SetSizes. Requires: all outlive this.
  SizeRewriter(Graph& graph, GraphFactors& factors, const std::vector<TensorType>& old_types)
      : graph_(graph), factors_(factors), old_types_(old_types), definer_(DefiningNodes(graph)) {}

  // Error: sizes that no factor explains.
  absl::Status Rewrite(Node& node);

  std::vector<int64_t> OldSizes(ValueId id) const;
  bool Changed(ValueId id) const { return NewSizes(id) != OldSizes(id); }
  bool Changed(ValueId id, int64_t dim) const;

 private:
  struct SizeOf {
    ValueId id;
    int64_t dim = 0;
  };
  std::vector<int64_t> NewSizes(ValueId id) const;
  absl::Status RewriteFourier(Node& node);
  absl::Status RewriteUnflatten(Node& node);
  absl::Status RewriteEye(Node& node);
  absl::Status RewriteRepeat(Node& node);
  absl::Status RewriteSelect(const Node& node);
  absl::Status RewriteSlice(Node& node);
  absl::Status CheckPlaces(const Node& node, ValueId self, int64_t dim);
  absl::Status CheckStart(const Node& node, ValueId self, int64_t dim);
  absl::Status CheckEnd(const Node& node, ValueId self, int64_t dim, int64_t end);
  absl::Status CheckWritten(const Node& node) const;
  absl::Status UnknownPlace(int64_t place, ValueId self, int64_t dim) const;
  int64_t PartsOf(const Node& node) const;
  absl::Status CheckParts(const Node& node, int64_t parts) const;
  bool IsRoot(ValueId id, int64_t dim) const;
  bool IsConstantThatChanged(ValueId id, int64_t dim) const;
  bool IsSymbolic(ValueId id) const;
  std::optional<SizeOf> UnknownSize(const OpContext& context) const;
  absl::Status Unexplained(const Node& node) const;
  void SetSizes(Node& node, size_t arg);
  const Node* PairsOf(ValueId places) const;
  absl::Status CheckPairs(const Node& node) const;
  absl::Status CheckFarPlaces(const Node& node) const;
  bool IsOpaque(const Node& node) const;
  absl::Status CheckExplained(const Node& node);
  bool FollowsItsInput(const OpContext& context, int64_t first_dim) const;
  bool KeepsPlaces(const OpContext& context) const;  // of [batch, channels, places...]
  bool IsSumOfParts(const OpContext& context) const;
  bool HasAllParts(const OpContext& context) const;

  Graph& graph_;
  GraphFactors& factors_;
  const std::vector<TensorType>& old_types_;
  const std::vector<int32_t> definer_;
};

}  // namespace autosp
