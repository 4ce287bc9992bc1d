// Writes a graph node by node, as an exporter would: each op runs at once on example tensors, so
// that sizes, strides and types of its results are PyTorch's own.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "compiler/ir/graph.h"

namespace autosp {

// Literals of `Call`.
inline Argument Int(int64_t value) { return SymInt(value); }
Argument Ints(const std::vector<int64_t>& values);

class GraphSketch {
 public:
  // `name` says how an input is fed (example_values.h).
  ValueId Input(const std::string& name, const at::Tensor& example);
  ValueId Parameter(const std::string& name, const std::vector<int64_t>& sizes, bool is_trained);

  // An op with one result; arguments that are left out get the schema's defaults. A call that ATen
  // does not take is a mistake of the caller, and aborts.
  ValueId Call(const std::string& op, std::vector<Argument> args);
  std::vector<ValueId> CallForAll(const std::string& op, std::vector<Argument> args);

  std::vector<int64_t> Sizes(ValueId value) const;
  int64_t Size(ValueId value, int64_t dim) const;
  int64_t Rank(ValueId value) const { return tensors_[value.index].dim(); }
  bool IsTensor(ValueId value) const { return value.valid(); }

  // The graph with one output; what it does not need is dropped.
  Graph Finish(ValueId loss);

 private:
  ValueId Add(const std::string& name, const at::Tensor& tensor);
  ValueId CallTransform(const std::string& op, std::vector<Argument> args);

  Graph graph_;
  std::vector<at::Tensor> tensors_;  // by value
};

// Drops nodes, inputs and values that no output needs, and numbers the rest anew.
void DropUnused(Graph& graph);

}  // namespace autosp
