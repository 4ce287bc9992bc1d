// Writes calls on pairs of real numbers into a graph as exported (complex_pairs.h).
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "compiler/import/exported_program.h"

namespace autosp {

// Arguments: a tensor, an integer, a list of integers.
exported::Argument TensorArgumentOf(std::string name);
exported::Argument IntegerArgumentOf(int64_t value);
exported::Argument NumberArgumentOf(double value);
// The element type of a tensor, as ops take it.
exported::Argument TypeArgumentOf(const exported::TensorMeta& meta);
exported::Argument IntegersArgumentOf(const std::vector<int64_t>& values);
exported::SymValue LiteralSize(int64_t value);

// Null where the call does not give it.
exported::Argument* FindArgument(exported::Node& node, std::string_view name);
const exported::Argument* FindArgument(const exported::Node& node, std::string_view name);

// The names of tensors among arguments.
std::vector<std::string> TensorsOf(const exported::Argument& argument);

// The size at export; 1 where it depends on data.
int64_t HintOf(const exported::SymValue& value);

void MakeContiguous(exported::TensorMeta& meta);
// The type of truth values in the places of a tensor.
exported::TensorMeta TruthOf(exported::TensorMeta meta);

// Makes the type of a complex tensor that of the pair which stands for it; false: it is another.
bool MakePairType(exported::TensorMeta& meta);

// Every refusal of an op on complex tensors ends like this.
absl::Status RefuseComplex(std::string_view why);

class PairWriter {
 public:
  // What one call is given and gives.
  using Node = exported::Node;
  using TensorMeta = exported::TensorMeta;

  // Types of complex tensors become those of pairs. `keeps_signs`: zeros have the signs that
  // PyTorch's kernels give them (complex_signs.h).
  PairWriter(exported::Graph& graph, bool keeps_signs);

  bool keeps_signs() const { return keeps_signs_; }

  bool IsPair(const std::string& name) const { return pairs_.contains(name); }
  bool HasPair(const exported::Argument& argument) const;
  bool Knows(const std::string& name) const { return graph_.tensors.contains(name); }
  const TensorMeta& TypeOf(const std::string& name) const { return graph_.tensors.at(name); }
  TensorMeta& ResultType(const Node& node) { return graph_.tensors.at(node.outputs[0].text); }

  void Append(Node node) { graph_.nodes.push_back(std::move(node)); }
  // An argument that is a size of the archive.
  exported::Argument SizeArgument(const exported::SymValue& size);

  // Calls `op` for `from`, whose place in the model it has; names the result after it. An op
  // without a namespace is one of ATen's.
  std::string Emit(const Node& from, std::string_view op,
                   std::vector<exported::NamedArgument> inputs, TensorMeta meta);
  // The real or the imaginary part of a pair.
  std::string Part(const Node& from, const std::string& pair, int64_t index);
  std::string Unary(const Node& from, std::string_view op, const std::string& x);
  // The same numbers in the element type of another tensor; itself where it has that.
  std::string Cast(const Node& from, const std::string& x, const TensorMeta& like);
  // Of operands that may be broadcast to the sizes of the call's result.
  std::string Binary(const Node& from, std::string_view op, const std::string& x,
                     const std::string& y);
  std::string Multiply(const Node& from, const std::string& x, const std::string& y);
  // A tensor with a last dimension of 1.
  std::string Unsqueezed(const Node& from, const std::string& x);
  // The name of a new pair of the type of another.
  std::string NewPair(const std::string& like);
  // The pair of two parts of one size.
  std::string MakePair(const Node& from, const std::string& re, const std::string& im);

  // Makes the call's result that of another op, or the pair of two parts.
  absl::Status Finish(Node node, std::string_view op, std::vector<exported::NamedArgument> inputs);
  absl::Status FinishPair(Node node, const std::string& re, const std::string& im);

  // The sizes of a call's result without the pair, in the type of its parts.
  TensorMeta PartType(const Node& node) const;
  // Whether the parts of a call's result have the sizes of a real tensor.
  bool HasSizesOfResult(const Node& node, const std::string& part) const;

 private:
  std::string NewName(const std::string& base);

  exported::Graph& graph_;
  bool keeps_signs_;
  std::set<std::string> pairs_;
  int64_t num_parts_ = 0;
};

}  // namespace autosp
