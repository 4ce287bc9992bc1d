#include "compiler/import/exported_program.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/import_limits.h"
#include "compiler/import/json_cursor.h"

namespace autosp::exported {
namespace {

constexpr int64_t kSchemaMajor = 8;

SymValue ReadSymValue(const JsonCursor& json) {
  SymValue value;
  json.Union([&value](const std::string& tag, const JsonCursor& member) {
    if (tag == "as_int") {
      value.hint = member.Int();
    } else if (tag == "as_float") {
      value.float_hint = member.Double();
    } else if (tag != "as_expr") {
      member.Fail("as_int, as_float or as_expr is expected");
    } else {
      value.expr = member.At("expr_str").LongString();
      if (!member.Has("hint")) return;
      member.At("hint").Union([&value](const std::string& hint_tag, const JsonCursor& hint) {
        if (hint_tag == "as_int") value.hint = hint.Int();
        if (hint_tag == "as_float") value.float_hint = hint.Double();
      });
    }
  });
  return value;
}

std::vector<SymValue> ReadSymValues(const JsonCursor& json) {
  std::vector<SymValue> values;
  json.ForEach([&](const JsonCursor& element) { values.push_back(ReadSymValue(element)); });
  if (values.size() > kMaxTensorRank) json.Fail("a tensor has at most 64 dimensions");
  return values;
}

TensorMeta ReadTensorMeta(const JsonCursor& json) {
  TensorMeta meta;
  meta.scalar_type = json.At("dtype").Int();
  meta.dtype = DTypeFromScalarType(meta.scalar_type);
  meta.sizes = ReadSymValues(json.At("sizes"));
  meta.strides = ReadSymValues(json.At("strides"));
  if (meta.sizes.size() != meta.strides.size()) json.Fail("sizes and strides differ in length");
  meta.storage_offset = ReadSymValue(json.At("storage_offset"));
  meta.requires_grad = json.At("requires_grad").Bool();
  meta.device = json.At("device").At("type").String();
  meta.layout = json.At("layout").Int();
  return meta;
}

// {"as_name": "x"} or {"as_int": 3}, as elements of lists and as single arguments.
Item ReadSymItem(const JsonCursor& json) {
  Item item;
  json.Union([&item](const std::string& tag, const JsonCursor& member) {
    if (tag == "as_name") {
      item.name = member.String();
    } else if (tag == "as_int") {
      item.integer = member.Int();
    } else if (tag == "as_float") {
      item.number = member.Double();
    } else if (tag == "as_bool") {
      item.integer = member.Bool() ? 1 : 0;
    } else {
      member.Fail("a name or a number is expected");
    }
  });
  return item;
}

// {"as_tensor": {"name": "x"}} or {"as_none": true}.
Item ReadOptionalTensor(const JsonCursor& json) {
  Item item;
  json.Union([&item](const std::string& tag, const JsonCursor& member) {
    if (tag == "as_tensor") item.name = member.At("name").String();
  });
  return item;
}

Graph ReadGraph(const JsonCursor& json, int depth);

using ReadInto = void (*)(const JsonCursor& json, int depth, Argument* out);

template <typename ReadItem>
void ReadItems(const JsonCursor& json, Argument* out, ReadItem read) {
  json.ForEach([&](const JsonCursor& element) { out->items.push_back(read(element)); });
}

struct ArgumentReader {
  std::string_view json_tag;
  Tag tag;
  ReadInto read;
};

void ReadNothing(const JsonCursor&, int, Argument*) {}
void ReadInteger(const JsonCursor& json, int, Argument* out) { out->integer = json.Int(); }
void ReadBool(const JsonCursor& json, int, Argument* out) { out->integer = json.Bool(); }
void ReadNumber(const JsonCursor& json, int, Argument* out) { out->number = json.Double(); }
void ReadText(const JsonCursor& json, int, Argument* out) { out->text = json.String(); }
void ReadName(const JsonCursor& json, int, Argument* out) { out->text = json.At("name").String(); }
void ReadDevice(const JsonCursor& json, int, Argument* out) {
  out->text = json.At("type").String();
}
void ReadOneSym(const JsonCursor& json, int, Argument* out) {
  out->items.push_back(ReadSymItem(json));
}
void ReadSyms(const JsonCursor& json, int, Argument* out) { ReadItems(json, out, ReadSymItem); }
void ReadIntegers(const JsonCursor& json, int, Argument* out) {
  ReadItems(json, out, [](const JsonCursor& element) { return Item{"", element.Int(), 0}; });
}
void ReadNumbers(const JsonCursor& json, int, Argument* out) {
  ReadItems(json, out, [](const JsonCursor& element) { return Item{"", 0, element.Double()}; });
}
void ReadBools(const JsonCursor& json, int, Argument* out) {
  ReadItems(json, out, [](const JsonCursor& element) { return Item{"", element.Bool(), 0}; });
}
void ReadTensors(const JsonCursor& json, int, Argument* out) {
  ReadItems(json, out, [](const JsonCursor& element) {
    return Item{element.At("name").String(), 0, 0};
  });
}
void ReadOptionalTensors(const JsonCursor& json, int, Argument* out) {
  ReadItems(json, out, ReadOptionalTensor);
}
void ReadSingleOptionalTensor(const JsonCursor& json, int, Argument* out) {
  out->text = ReadOptionalTensor(json).name;
  if (out->text.empty()) out->tag = Tag::kNone;
}
void ReadComplex(const JsonCursor& json, int, Argument* out) {
  out->number = json.At("real").Double();
  out->items = {{.name = "", .number = json.At("imag").Double()}};
}
void ReadSubgraph(const JsonCursor& json, int depth, Argument* out) {
  out->text = json.At("name").String();
  out->graph = std::make_shared<Graph>(ReadGraph(json.At("graph"), depth + 1));
}

constexpr ArgumentReader kArgumentReaders[] = {
    {"as_none", Tag::kNone, ReadNothing},
    {"as_tensor", Tag::kTensor, ReadName},
    {"as_tensors", Tag::kTensors, ReadTensors},
    {"as_optional_tensor", Tag::kTensor, ReadSingleOptionalTensor},
    {"as_optional_tensors", Tag::kTensors, ReadOptionalTensors},
    {"as_int", Tag::kInt, ReadInteger},
    {"as_ints", Tag::kInts, ReadIntegers},
    {"as_float", Tag::kFloat, ReadNumber},
    {"as_floats", Tag::kFloats, ReadNumbers},
    {"as_complex", Tag::kComplex, ReadComplex},
    {"as_string", Tag::kString, ReadText},
    {"as_sym_int", Tag::kSymInt, ReadOneSym},
    {"as_sym_ints", Tag::kSymInts, ReadSyms},
    {"as_sym_float", Tag::kSymFloat, ReadOneSym},
    {"as_sym_bool", Tag::kSymBool, ReadOneSym},
    {"as_scalar_type", Tag::kScalarType, ReadInteger},
    {"as_memory_format", Tag::kMemoryFormat, ReadInteger},
    {"as_layout", Tag::kLayout, ReadInteger},
    {"as_device", Tag::kDevice, ReadDevice},
    {"as_bool", Tag::kBool, ReadBool},
    {"as_bools", Tag::kBools, ReadBools},
    {"as_graph", Tag::kGraph, ReadSubgraph},
};

Argument ReadArgument(const JsonCursor& json, int depth) {
  Argument argument;
  json.Union([&](const std::string& json_tag, const JsonCursor& member) {
    for (const ArgumentReader& reader : kArgumentReaders) {
      if (reader.json_tag != json_tag) continue;
      argument.tag = reader.tag;
      return reader.read(member, depth, &argument);
    }
    argument.tag = Tag::kUnsupported;
    argument.text = json_tag;
  });
  return argument;
}

Node ReadNode(const JsonCursor& json, int depth) {
  Node node;
  node.target = json.At("target").String();
  json.At("inputs").ForEach([&](const JsonCursor& input) {
    NamedArgument argument;
    argument.name = input.At("name").String();
    argument.value = ReadArgument(input.At("arg"), depth);
    argument.is_keyword = input.Has("kind") && input.At("kind").Int() == 2;
    node.inputs.push_back(std::move(argument));
  });
  json.At("outputs").ForEach(
      [&](const JsonCursor& output) { node.outputs.push_back(ReadArgument(output, depth)); });
  if (!json.Has("metadata")) return node;
  const JsonCursor metadata = json.At("metadata");
  std::string modules;
  if (metadata.Has("nn_module_stack")) {
    modules = metadata.At("nn_module_stack").LongString();
    node.module = InnermostModule(modules);
  }
  if (metadata.Has("stack_trace")) {
    const std::string text = metadata.At("stack_trace").LongString();
    const StackTrace trace(text);
    node.location = trace.InnermostFrame();
    node.function_call = trace.FindFunctionCall(modules);
  }
  return node;
}

Graph ReadGraph(const JsonCursor& json, int depth) {
  Graph graph;
  if (depth > kMaxSubgraphDepth) {
    json.Fail(absl::StrCat("graphs nest more than ", kMaxSubgraphDepth, " deep"));
    return graph;
  }
  const auto read_argument = [&](std::vector<Argument>* out) {
    return
        [out, depth](const JsonCursor& element) { out->push_back(ReadArgument(element, depth)); };
  };
  json.At("inputs").ForEach(read_argument(&graph.inputs));
  json.At("outputs").ForEach(read_argument(&graph.outputs));
  json.At("nodes").ForEach(
      [&](const JsonCursor& node) { graph.nodes.push_back(ReadNode(node, depth)); });
  json.At("tensor_values").ForEachMember([&](const std::string& name, const JsonCursor& meta) {
    graph.tensors.emplace(name, ReadTensorMeta(meta));
  });
  json.At("sym_int_values").ForEachMember([&](const std::string& name, const JsonCursor& value) {
    graph.sym_ints.emplace(name, ReadSymValue(value));
  });
  if (json.Has("sym_float_values")) {
    json.At("sym_float_values")
        .ForEachMember([&](const std::string& name, const JsonCursor& value) {
          graph.sym_floats.emplace(name, ReadSymValue(value));
        });
  }
  if (json.Has("sym_bool_values")) {
    json.At("sym_bool_values").ForEachMember([&](const std::string& name, const JsonCursor& value) {
      value.Union([&](const std::string& tag, const JsonCursor& member) {
        if (tag == "as_expr") graph.sym_bools.emplace(name, member.At("expr_str").LongString());
      });
    });
  }
  return graph;
}

InputSpec ReadInputSpec(const JsonCursor& json) {
  InputSpec spec;
  json.Union([&spec](const std::string& tag, const JsonCursor& member) {
    spec.kind = tag;
    const auto read_named = [&](InputRole role, std::string_view name_key) {
      spec.role = role;
      spec.value_name = member.At("arg").At("name").String();
      spec.name = member.At(name_key).String();
    };
    if (tag == "parameter") {
      read_named(InputRole::kParameter, "parameter_name");
    } else if (tag == "buffer") {
      read_named(InputRole::kBuffer, "buffer_name");
      spec.is_persistent = member.At("persistent").Bool();
    } else if (tag == "tensor_constant") {
      read_named(InputRole::kTensorConstant, "tensor_constant_name");
    } else if (tag == "constant_input") {
      spec.role = InputRole::kConstant;
      spec.name = member.At("name").String();
    } else if (tag == "user_input") {
      const Argument argument = ReadArgument(member.At("arg"), 0);
      spec.role = argument.tag == Tag::kTensor ? InputRole::kUser : InputRole::kConstant;
      if (argument.tag == Tag::kSymInt) spec.role = InputRole::kOther;
      spec.value_name = argument.tag == Tag::kTensor ? argument.text : "";
      spec.name = spec.value_name;
    }
  });
  return spec;
}

OutputSpec ReadOutputSpec(const JsonCursor& json) {
  OutputSpec spec;
  json.Union([&spec](const std::string& tag, const JsonCursor& member) {
    spec.kind = tag;
    if (tag == "user_output") {
      spec.value = ReadArgument(member.At("arg"), 0);
    } else if (tag == "loss_output" || tag == "buffer_mutation") {
      spec.value.tag = Tag::kTensor;
      spec.value.text = member.At("arg").At("name").String();
    }
    for (const char* key : {"buffer_name", "parameter_name", "user_input_name"}) {
      if (member.Has(key)) spec.target = member.At(key).String();
    }
  });
  return spec;
}

// What the whole model takes and gives, as Python has it; the pytree of its outputs names the keys
// of a dictionary ("loss", "logits").
void ReadRootSignature(const JsonCursor& graph_module, Program& program) {
  if (!graph_module.Has("module_call_graph")) return;
  graph_module.At("module_call_graph").ForEach([&program](const JsonCursor& entry) {
    if (!entry.Has("fqn") || !entry.Has("signature")) return;
    if (!entry.At("fqn").LongString().empty()) return;
    const JsonCursor signature = entry.At("signature");
    program.output_spec = signature.At("out_spec").LongString();
    if (!signature.Has("forward_arg_names")) return;
    signature.At("forward_arg_names").ForEach([&program](const JsonCursor& name) {
      program.forward_names.push_back(name.String());
    });
  });
}

absl::Status CheckSchemaVersion(const Program& program, const std::string& name) {
  if (program.schema_major == kSchemaMajor) return absl::OkStatus();
  return Unimplemented(name, ": export schema ", program.schema_major, ".", program.schema_minor,
                       " is not supported, only ", kSchemaMajor,
                       ".x is; export again with torch 2.9 to 2.15");
}

SymbolRange ReadRange(const JsonCursor& json) {
  SymbolRange range;
  if (json.Has("min_val")) range.min = json.At("min_val").Int();
  if (json.Has("max_val")) range.max = json.At("max_val").Int();
  return range;
}

}  // namespace

absl::StatusOr<Program> ReadProgram(std::string_view json, std::string name) {
  ASSIGN_OR_RETURN(JsonDocument document, JsonDocument::Parse(json, name));
  const JsonCursor root = document.root();
  Program program;
  program.schema_major = root.At("schema_version").At("major").Int();
  program.schema_minor = root.At("schema_version").At("minor").Int();
  RETURN_IF_ERROR(document.status());
  RETURN_IF_ERROR(CheckSchemaVersion(program, name));
  if (root.Has("torch_version")) program.torch_version = root.At("torch_version").String();
  const JsonCursor module = root.At("graph_module");
  program.graph = ReadGraph(module.At("graph"), 0);
  const JsonCursor signature = module.At("signature");
  signature.At("input_specs").ForEach([&](const JsonCursor& spec) {
    program.inputs.push_back(ReadInputSpec(spec));
  });
  signature.At("output_specs").ForEach([&](const JsonCursor& spec) {
    program.outputs.push_back(ReadOutputSpec(spec));
  });
  ReadRootSignature(module, program);
  root.At("range_constraints")
      .ForEachMember([&](const std::string& symbol, const JsonCursor& range) {
        program.symbol_ranges.emplace(symbol, ReadRange(range));
      });
  if (root.Has("guards_code")) {
    root.At("guards_code").ForEach([&](const JsonCursor& guard) {
      program.guards.push_back(guard.LongString());
    });
  }
  RETURN_IF_ERROR(document.status());
  return program;
}

std::string Describe(const Node& node) {
  constexpr std::string_view kTorchOps = "torch.ops.";
  std::string text = node.module.empty() ? "" : absl::StrCat(node.module, ": ");
  text += node.target.starts_with(kTorchOps) ? node.target.substr(kTorchOps.size()) : node.target;
  if (!node.outputs.empty() && node.outputs[0].tag == Tag::kTensor) {
    absl::StrAppend(&text, " (%", node.outputs[0].text, ")");
  }
  if (!node.location.empty()) absl::StrAppend(&text, " at ", node.location);
  return text;
}

absl::StatusOr<std::map<std::string, Payload>> ReadPayloadConfig(std::string_view json,
                                                                 std::string name) {
  ASSIGN_OR_RETURN(JsonDocument document, JsonDocument::Parse(json, std::move(name)));
  std::map<std::string, Payload> payloads;
  document.root().At("config").ForEachMember([&](const std::string& key, const JsonCursor& member) {
    Payload payload;
    payload.path = member.At("path_name").String();
    payload.is_parameter = member.At("is_param").Bool();
    payload.is_pickled = member.At("use_pickle").Bool();
    if (member.Has("tensor_meta")) payload.meta = ReadTensorMeta(member.At("tensor_meta"));
    payloads.emplace(key, std::move(payload));
  });
  RETURN_IF_ERROR(document.status());
  return payloads;
}

}  // namespace autosp::exported
