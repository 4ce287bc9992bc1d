// Builds the new node list of a graph while a pass walks the old one.
#pragma once

#include <string_view>
#include <vector>

#include "compiler/ir/graph.h"

namespace autosp {

// Usage: for each node of `nodes()`, either Keep it, or Emit others and Replace its results; then
// Finish. Operands of kept and emitted nodes are renamed to their replacements.
class GraphRewriter {
 public:
  explicit GraphRewriter(Graph& graph);

  // The old nodes. Stable while new ones are emitted.
  const std::vector<Node>& nodes() const { return old_nodes_; }
  Graph& graph() { return graph_; }

  void Keep(const Node& node);
  // Adds a node with the source of `like`, and results of `types`; returns the results.
  std::vector<ValueId> Emit(const Node& like, std::string_view op, std::vector<Argument> args,
                            std::vector<TensorType> types);
  ValueId EmitOne(const Node& like, std::string_view op, std::vector<Argument> args,
                  TensorType type);
  // Uses of `old_value` from here on read `new_value`.
  void Replace(ValueId old_value, ValueId new_value);
  // What `id` is called now.
  ValueId Current(ValueId id) const;
  // The old node that defines an old value; null: an input.
  const Node* OldDefiner(ValueId id);

  // Renames the outputs, installs the nodes; whether anything but Keep happened.
  bool Finish();

 private:
  Graph& graph_;
  std::vector<Node> old_nodes_;
  std::vector<Node> new_nodes_;
  std::vector<ValueId> replacement_;  // by old value; invalid: itself
  std::vector<int32_t> old_definer_;  // by old value, once somebody asks; -1: an input
  bool changed_ = false;
};

// Each place of a dimension `copies` times in a row: %k [B, Nkv, S, H] along 1 -> [B, Nkv * copies,
// S, H].
ValueId RepeatAlong(GraphRewriter& rewriter, const Node& node, ValueId value, int64_t dim,
                    int64_t copies);

// Index of the node that defines each value; -1 for inputs.
std::vector<int32_t> DefiningNodes(const Graph& graph);

// Whether two values have the same dtype and sizes.
bool SameType(const Graph& graph, ValueId a, ValueId b);

// A contiguous type of the same dtype and sizes.
TensorType Contiguous(TensorType type);
TensorType ContiguousOf(DType dtype, std::vector<SymInt> sizes);

// `value` in other sizes of as many elements.
ValueId ReshapeTo(const Node& node, ValueId value, std::vector<SymInt> sizes,
                  GraphRewriter& rewriter);

// `value` in another type.
ValueId CastTo(const Node& node, ValueId value, DType dtype, GraphRewriter& rewriter);

// first, first + 1, ..., end - 1
ValueId EmitRange(GraphRewriter& rewriter, const Node& node, int64_t first, int64_t end);

}  // namespace autosp
