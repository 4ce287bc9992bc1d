// The one-device program that a user submitted: ATen ops over values, in execution order.
//
// A graph holds what `torch.export` wrote, with noise removed and nothing decided yet: op names and
// overloads are ATen's (one of them, where an op has several), arguments stand in schema order with
// defaults filled in, and sizes are the exported ones (the hint of each symbol). Values are in
// single assignment form. In-place ops have been made functional by the importer, so no op writes
// to an operand. What a step leaves in a buffer is an output of the graph: `%new writes %buffer`.
//
// Text form (Parse(Print(g)) == g):
//
//   graph "llama" {
//     symbol s38 = 32
//     input %input_ids "input_ids" : i64[2, 32{s38}]
//     param %w "model.embed_tokens.weight" : f32[256, 64]
//     buffer %inv "model.rotary_emb.inv_freq" : f32[8]
//     %e = aten.embedding.default(%w, %input_ids, -1, false, false) : f32[2, 32{s38}, 64]
//         @ "model.embed_tokens" "modeling_llama.py:370"
//     %a, %b = aten.split.Tensor(%e, 32, -1) : f32[2, 32{s38}, 32], f32[2, 32{s38}, 32]
//     return %loss, %new writes %inv
//   }
//
// Strides are printed after the sizes where a value is not contiguous:
// `f32[2, 4, 32, 16]{strides=2048,16,64,1}`. (On one line with the op; broken here for width.)
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/ir/argument.h"
#include "compiler/ir/dtype.h"
#include "compiler/ir/source.h"

namespace autosp {

struct TensorType {
  DType dtype = DType::kF32;
  std::vector<SymInt> sizes;
  std::vector<int64_t> strides;  // elements; of the exported sizes
  int64_t rank() const { return static_cast<int64_t>(sizes.size()); }
  int64_t numel() const;
  friend bool operator==(const TensorType&, const TensorType&) = default;
};

std::vector<int64_t> ContiguousStrides(const std::vector<int64_t>& sizes);

enum class InputKind : uint8_t {
  kUser,       // fed from data at each step
  kParameter,  // trained, unless frozen
  kBuffer,     // persistent or not, and lifted tensor constants
};

struct GraphInput {
  ValueId value;
  InputKind kind = InputKind::kUser;
  std::string name;  // as the user knows it: argument name, or qualified name in the state dict
  // Tied parameters (several names, one storage) appear once; the other names are aliases.
  std::vector<std::string> aliases;
  bool requires_grad = false;
};

struct GraphValue {
  std::string name;  // unique in the graph; printed as %name
  TensorType type;
};

struct Node {
  std::string op;  // "aten.linear.default"
  std::vector<Argument> args;
  std::vector<ValueId> outputs;
  Source source;
  bool no_grad = false;  // stood inside torch.no_grad (wrap_with_set_grad_enabled(False))
};

struct Graph {
  std::string name;
  SymBindings symbols;  // symbol -> hint at export
  std::vector<GraphValue> values;
  std::vector<GraphInput> inputs;
  std::vector<Node> nodes;
  std::vector<ValueId> outputs;
  std::vector<std::string> output_names;  // from the archive, or "output_0"
  // Outputs that are no results but what a buffer holds after the step: their index, and the
  // buffer's value before it, which every node reads. They stand behind all others, by the name of
  // the buffer.
  std::map<size_t, ValueId> writes;

  const GraphValue& value(ValueId id) const { return values[id.index]; }
  GraphValue& value(ValueId id) { return values[id.index]; }
  const TensorType& type(ValueId id) const { return values[id.index].type; }
  // Adds a value; a name that is taken gets a numeric suffix.
  ValueId AddValue(std::string_view name, TensorType type);
  // Others instead; names that are gone are free again.
  void SetValues(std::vector<GraphValue> new_values);
  const GraphInput* FindInput(ValueId id) const;
  // Outputs that are no writes.
  size_t NumResults() const { return outputs.size() - writes.size(); }
  std::vector<std::string> ResultNames() const;
  // Makes `value` what `buffer` holds after the step. Requires: an input, which nothing writes yet.
  void AddWrite(ValueId buffer, ValueId value);

 private:
  // Of AddValue: the names of values[0, num_indexed_), each with the next suffix to try.
  std::unordered_map<std::string, int64_t> next_suffix_;
  size_t num_indexed_ = 0;
};

// The tensor operands of a node, in argument order (lists flattened, None skipped).
std::vector<ValueId> OperandsOf(const Node& node);

// "model.layers.0.mlp: aten.linear.default at modeling_llama.py:91", for the head of a message.
std::string Describe(const Graph& graph, const Node& node);

std::string PrintGraph(const Graph& graph);
absl::StatusOr<Graph> ParseGraph(std::string_view text);  // errors name line and column

// Single assignment, uses after definitions, operand ids in range, outputs defined.
absl::Status VerifyGraph(const Graph& graph);

}  // namespace autosp
