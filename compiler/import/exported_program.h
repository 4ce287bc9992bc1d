// What `models/model.json` of an archive says, typed, before any meaning is given to it.
//
// Mirrors torch/_export/serde/schema.py, schema 8.x, reduced to what an import needs. Fields that
// are unknown are ignored, as the schema's minor versions ask.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/import/stack_trace.h"
#include "compiler/ir/dtype.h"

namespace autosp::exported {

// An integer (or float) that may be an expression over symbols, with its value at export.
struct SymValue {
  std::string expr;             // a sympy srepr; empty for a literal
  std::optional<int64_t> hint;  // the literal, or the value at export; none: depends on data
  std::optional<double> float_hint;
};

struct TensorMeta {
  std::optional<DType> dtype;  // none: a type that no graph of ours holds
  int64_t scalar_type = 0;     // the schema's number of it
  std::vector<SymValue> sizes;
  std::vector<SymValue> strides;
  SymValue storage_offset;
  bool requires_grad = false;
  std::string device;
  int64_t layout = 0;
};

struct Graph;

enum class Tag : uint8_t {
  kNone,
  kTensor,      // text
  kTensors,     // items; an item without a name is None (also as_optional_tensors)
  kInt,         // integer
  kInts,        // items
  kFloat,       // number
  kFloats,      // items
  kComplex,     // number, and that of one item
  kString,      // text
  kSymInt,      // one item
  kSymInts,     // items
  kSymFloat,    // one item
  kSymBool,     // one item
  kScalarType,  // integer, as are the next two
  kMemoryFormat,
  kLayout,
  kDevice,       // text
  kBool,         // integer
  kBools,        // items
  kGraph,        // text (its name), graph
  kUnsupported,  // text: the tag
};

// A name of the graph, or a literal where the name is empty.
struct Item {
  std::string name;
  int64_t integer = 0;
  double number = 0;
};

struct Argument {
  Tag tag = Tag::kNone;
  std::string text;
  int64_t integer = 0;
  double number = 0;
  std::vector<Item> items;
  std::shared_ptr<const Graph> graph;
};

struct NamedArgument {
  std::string name;  // empty for higher order ops
  Argument value;
  bool is_keyword = false;
};

struct Node {
  std::string target;
  std::vector<NamedArgument> inputs;
  std::vector<Argument> outputs;
  std::string module;    // innermost entry of nn_module_stack
  std::string location;  // innermost frame of stack_trace, "file.py:12"
  std::optional<FunctionCall> function_call;
};

// "model.layers.0.mlp: aten.linear.default (%linear) at modeling.py:12", for the head of a message.
std::string Describe(const Node& node);

struct Graph {
  std::vector<Argument> inputs;
  std::vector<Argument> outputs;
  std::vector<Node> nodes;
  std::unordered_map<std::string, TensorMeta> tensors;
  // In the order of their names, so that an import is the same each time.
  std::map<std::string, SymValue> sym_ints;
  std::map<std::string, SymValue> sym_floats;
  std::map<std::string, std::string> sym_bools;  // relations between symbols, as srepr
};

enum class InputRole : uint8_t { kUser, kConstant, kParameter, kBuffer, kTensorConstant, kOther };

struct InputSpec {
  InputRole role = InputRole::kOther;
  std::string kind;        // the schema's tag, for messages
  std::string value_name;  // in the graph; empty for what is no tensor
  std::string name;        // qualified name in the state dict, or of the constant
  bool is_persistent = true;
};

struct OutputSpec {
  std::string kind;  // "user_output", "loss_output", "buffer_mutation", ...
  Argument value;
  std::string target;  // of a mutation: what is written
};

struct SymbolRange {
  std::optional<int64_t> min;
  std::optional<int64_t> max;
};

struct Program {
  int64_t schema_major = 0;
  int64_t schema_minor = 0;
  std::string torch_version;
  Graph graph;
  std::vector<InputSpec> inputs;
  std::vector<OutputSpec> outputs;
  std::string output_spec;  // a pytree of the outputs, as JSON; may be empty
  std::map<std::string, SymbolRange> symbol_ranges;
  std::vector<std::string> guards;
  std::vector<std::string> forward_names;  // of what forward() takes, in their order
};

// `name` stands in front of messages.
absl::StatusOr<Program> ReadProgram(std::string_view json, std::string name);

// Where the bytes of a parameter, buffer or constant lie.
struct Payload {
  std::string path;  // "weight_0"
  bool is_parameter = false;
  bool is_pickled = false;
  std::optional<TensorMeta> meta;
};
absl::StatusOr<std::map<std::string, Payload>> ReadPayloadConfig(std::string_view json,
                                                                 std::string name);

// The schema's own numbers, which are not c10's.
std::optional<DType> DTypeFromScalarType(int64_t scalar_type);
std::string_view ScalarTypeName(int64_t scalar_type);
std::string_view MemoryFormatName(int64_t format);  // empty if unknown, as below
std::string_view LayoutName(int64_t layout);

}  // namespace autosp::exported
