// Appends values and nodes to a graph under construction, with unique names, and knows which values
// carry a gradient.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "compiler/ir/graph.h"

namespace autosp {

// What a node inherits from the place of the model that it comes from.
struct NodeContext {
  Source source;
  bool no_grad = false;
};

class GraphBuilder {
 public:
  explicit GraphBuilder(Graph& graph) : graph_(graph) {}

  const Graph& graph() const { return graph_; }
  const TensorType& type(ValueId id) const { return graph_.type(id); }
  const std::string& name(ValueId id) const { return graph_.value(id).name; }

  // A name that is taken gets a version, x.1 after x; characters that the text form lacks become
  // '_'.
  ValueId AddValue(std::string_view name, TensorType type);
  void AddInput(GraphInput input);

  // Appends a node over existing values.
  void Append(Node node);
  // Appends a node with one new value as its result.
  ValueId Emit(std::string op, std::vector<Argument> args, std::string_view name, TensorType type,
               const NodeContext& context);
  // aten.to.dtype: the same value in another element type.
  ValueId EmitCast(ValueId value, DType dtype, const NodeContext& context);

  // True if a gradient flows into the value when the loss is differentiated.
  bool requires_grad(ValueId id) const { return requires_grad_[id.index]; }
  bool IsInput(ValueId id) const { return is_input_[id.index]; }

 private:
  Graph& graph_;
  std::unordered_map<std::string, int> num_versions_;
  std::vector<bool> requires_grad_;
  std::vector<bool> is_input_;
};

}  // namespace autosp
