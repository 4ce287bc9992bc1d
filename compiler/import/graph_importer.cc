#include "compiler/import/graph_importer.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/argument_importer.h"
#include "compiler/import/autocast.h"
#include "compiler/import/functionalizer.h"
#include "compiler/import/graph_builder.h"
#include "compiler/import/import_limits.h"
#include "compiler/import/op_refusals.h"
#include "compiler/import/op_schemas.h"
#include "compiler/import/output_names.h"
#include "compiler/import/running_statistics.h"
#include "compiler/import/symbol_table.h"
#include "compiler/ir/text_cursor.h"
#include "compiler/ir/type_text.h"

namespace autosp {
namespace {

using exported::Tag;

constexpr std::string_view kTorchOps = "torch.ops.";
constexpr std::string_view kGradModeOp = "torch.ops.higher_order.wrap_with_set_grad_enabled";
constexpr std::string_view kAutocastOp = "torch.ops.higher_order.wrap_with_autocast";

// The names of one graph of the archive; nested graphs have their own.
struct Scope {
  const exported::Graph& graph;
  std::unordered_map<std::string, ValueId> tensors;
  bool no_grad = false;
  std::shared_ptr<AutocastRegion> autocast;  // null outside any region
};

// Assertions hold nothing that a plan needs: sizes are checked against the job's own.
bool IsAssertion(std::string_view target) {
  for (const std::string_view prefix :
       {"torch.ops.aten._assert_", "torch.ops.aten._functional_assert_",
        "torch.ops.aten.sym_constrain_range", "torch.ops.aten._functional_sym_constrain_range"}) {
    if (target.starts_with(prefix)) return true;
  }
  return false;
}

// Python arithmetic on sizes: its results are known from the archive's own table of values.
bool HasOnlySymbolicOutputs(const exported::Node& node) {
  if (node.outputs.empty()) return false;
  for (const exported::Argument& output : node.outputs) {
    if (output.tag != Tag::kSymInt && output.tag != Tag::kSymFloat && output.tag != Tag::kSymBool) {
      return false;
    }
  }
  return true;
}

// torch.sort(x, out=(values, indices)): as many tensors come last, by name, as there are results.
bool WritesSeveralResults(const exported::Node& node) {
  const size_t count = node.outputs.size();
  return count > 1 && node.inputs.size() > count &&
         std::all_of(node.inputs.end() - static_cast<std::ptrdiff_t>(count), node.inputs.end(),
                     [](const exported::NamedArgument& input) {
                       return input.is_keyword && input.value.tag == Tag::kTensor;
                     });
}

absl::Status RefuseUnknownOp(const exported::Node& node) {
  const std::string& target = node.target;
  if (target == "torch.ops.higher_order.cond") {
    return Unimplemented(
        "a branch that depends on values is not supported; compute both sides and choose with "
        "torch.where, or decide before the export");
  }
  if (target.starts_with("torch.ops.higher_order.")) {
    return Unimplemented(
        "the higher order op is not supported; known are set_grad_enabled and "
        "autocast, so export without it (control flow, compiled regions)");
  }
  if (!target.starts_with("torch.ops.aten.")) {
    return Unimplemented(
        "the op belongs to a library of its own, which ranks do not have; choose "
        "the model option that uses PyTorch's own ops");
  }
  const std::vector<std::string> similar = SimilarOps(target.substr(kTorchOps.size()));
  if (!similar.empty() && WritesSeveralResults(node)) {
    return Unimplemented("it is told where its ", node.outputs.size(), " results go (out=), which ",
                         "is not supported; take the results that it returns, and copy_ them to ",
                         "where they should be");
  }
  if (!similar.empty()) {
    return Unimplemented("the op is not in the op table, which has ", absl::StrJoin(similar, ", "));
  }
  return RefuseUnknownAtenOp(std::string_view(target).substr(kTorchOps.size()));
}

class GraphImporter {
 public:
  GraphImporter(const exported::Program& program, const std::map<std::string, InputFacts>& facts,
                Graph& graph)
      : program_(program), facts_(facts), graph_(graph), builder_(graph), functional_(builder_) {}

  absl::Status Import() {
    RETURN_IF_ERROR(symbols_.Collect(program_.graph));
    graph_.symbols = symbols_.hints();
    Scope scope{program_.graph, {}, false, nullptr};
    RETURN_IF_ERROR(ImportInputs(scope));
    RETURN_IF_ERROR(ImportNodes(scope));
    return ImportOutputs(scope);
  }

 private:
  absl::StatusOr<TensorType> ImportType(const Scope& scope, const std::string& name) {
    const auto found = scope.graph.tensors.find(name);
    if (found == scope.graph.tensors.end()) {
      return DataLoss("the archive has no type for %", name);
    }
    const exported::TensorMeta& meta = found->second;
    if (!meta.dtype.has_value()) {
      return Unimplemented("%", name, " has element type ",
                           Absl(exported::ScalarTypeName(meta.scalar_type)),
                           ", which is not supported");
    }
    if (exported::LayoutName(meta.layout) != "strided") {
      return Unimplemented("%", name, " is not a dense tensor; use dense tensors");
    }
    TensorType type;
    type.dtype = *meta.dtype;
    for (size_t i = 0; i < meta.sizes.size(); ++i) {
      ASSIGN_OR_RETURN(SymInt size, symbols_.ToSymInt(meta.sizes[i]), "%", name);
      type.sizes.push_back(std::move(size));
      ASSIGN_OR_RETURN(const int64_t stride, StrideOf(meta.strides[i]), "%", name);
      type.strides.push_back(stride);
    }
    if (FitsMemory(type.dtype, SizeValues(type))) return type;
    return DataLoss("the size of %", name, " is negative or does not fit 64 bits");
  }

  // Strides are kept as numbers, so an expression that only they have need not be understood.
  absl::StatusOr<int64_t> StrideOf(const exported::SymValue& stride) {
    if (stride.hint.has_value()) return *stride.hint;
    ASSIGN_OR_RETURN(const SymInt value, symbols_.ToSymInt(stride));
    return value.value;
  }

  absl::Status ImportInputs(Scope& scope) {
    std::map<std::string, size_t> index_by_name;  // of parameters and buffers, for tied ones
    for (const exported::InputSpec& spec : program_.inputs) {
      if (spec.role == exported::InputRole::kConstant) continue;  // inlined where it is used
      if (spec.role == exported::InputRole::kOther) {
        return Unimplemented("input of kind ", spec.kind, " is not supported; pass tensors only");
      }
      const auto facts = facts_.find(spec.name);
      const bool is_tied = facts != facts_.end() && !facts->second.tied_to.empty();
      if (is_tied && index_by_name.contains(facts->second.tied_to)) {
        GraphInput& input = graph_.inputs[index_by_name.at(facts->second.tied_to)];
        input.aliases.push_back(spec.name);
        scope.tensors[spec.value_name] = input.value;
        continue;
      }
      RETURN_IF_ERROR(WithContext(ImportInput(spec, scope), "input ", spec.name));
      if (spec.role != exported::InputRole::kUser) {
        index_by_name[spec.name] = graph_.inputs.size() - 1;
      }
    }
    return absl::OkStatus();
  }

  absl::Status ImportInput(const exported::InputSpec& spec, Scope& scope) {
    GraphInput input;
    input.name = spec.name;
    input.kind = spec.role == exported::InputRole::kUser        ? InputKind::kUser
                 : spec.role == exported::InputRole::kParameter ? InputKind::kParameter
                                                                : InputKind::kBuffer;
    ASSIGN_OR_RETURN(TensorType type, ImportType(scope, spec.value_name));
    if (input.kind == InputKind::kParameter && IsFloating(type.dtype)) {
      const auto facts = facts_.find(spec.name);
      input.requires_grad = facts == facts_.end() || facts->second.requires_grad;
    }
    input.value = builder_.AddValue(spec.value_name, std::move(type));
    if (!scope.tensors.emplace(spec.value_name, input.value).second) {
      return DataLoss("%", spec.value_name, " is defined twice, so the archive is damaged");
    }
    if (spec.role == exported::InputRole::kBuffer) functional_.AllowWrites(input.value);
    builder_.AddInput(std::move(input));
    return absl::OkStatus();
  }

  absl::Status ImportNodes(Scope& scope) {
    for (const exported::Node& node : scope.graph.nodes) {
      absl::Status status = ImportNode(node, scope);
      // The nodes of a region have said where they stand.
      const bool is_region = node.target == kGradModeOp || node.target == kAutocastOp;
      if (status.ok() && graph_.values.size() > kMaxGraphValues) {
        status = ResourceExhausted("the graph grows beyond ", kMaxGraphValues, " values");
      }
      if (!status.ok()) return is_region ? status : WithContext(status, exported::Describe(node));
    }
    return absl::OkStatus();
  }

  absl::Status ImportNode(const exported::Node& node, Scope& scope) {
    if (IsAssertion(node.target) || HasOnlySymbolicOutputs(node)) return absl::OkStatus();
    if (node.target == kGradModeOp) return ImportGradMode(node, scope);
    if (node.target == kAutocastOp) return ImportAutocast(node, scope);
    const OpSchema* schema = node.target.starts_with(kTorchOps)
                                 ? FindOpSchema(node.target.substr(kTorchOps.size()))
                                 : nullptr;
    if (schema == nullptr) return RefuseUnknownOp(node);
    return ImportCall(*schema, node, scope);
  }

  NameResolver ResolverFor(const Scope& scope) {
    return {
        .tensor = [&](const std::string& name) { return FindTensor(scope, name); },
        .sym_int = [&](const std::string& name) { return FindSymInt(scope, name); },
        .sym_float = [&](const std::string& name) -> absl::StatusOr<SymFloat> {
          const auto found = scope.graph.sym_floats.find(name);
          if (found == scope.graph.sym_floats.end()) return NotDefined(name);
          return symbols_.ToSymFloat(found->second);
        },
    };
  }

  static absl::Status NotDefined(const std::string& name) {
    return DataLoss("%", name, " is used but not defined, so the archive is damaged");
  }

  absl::StatusOr<ValueId> FindTensor(const Scope& scope, const std::string& name) {
    const auto found = scope.tensors.find(name);
    if (found == scope.tensors.end()) return NotDefined(name);
    return functional_.Current(found->second);
  }

  absl::StatusOr<SymInt> FindSymInt(const Scope& scope, const std::string& name) {
    const auto found = scope.graph.sym_ints.find(name);
    if (found == scope.graph.sym_ints.end()) return NotDefined(name);
    return symbols_.ToSymInt(found->second);
  }

  absl::Status ImportCall(const OpSchema& schema, const exported::Node& node, Scope& scope) {
    ASSIGN_OR_RETURN(std::vector<Argument> args,
                     ImportArguments(schema, node.inputs, ResolverFor(scope)));
    const NodeContext context{{node.module, node.location}, scope.no_grad};
    if (const OpSchema* returning = FindReturningForm(schema)) {
      return ImportWriteToOut(*returning, std::move(args), node, context, scope);
    }
    RETURN_IF_ERROR(CheckSupported(schema, args));
    if (schema.written() != nullptr) return ImportWrite(schema, args, node, context, scope);
    if (scope.autocast != nullptr) {
      RETURN_IF_ERROR(
          scope.autocast->CastOperands(schema, StatedType(node, scope), context, builder_, args));
    }
    Node call{schema.name, std::move(args), {}, context.source, context.no_grad};
    for (const exported::Argument& output : node.outputs) {
      RETURN_IF_ERROR(ImportOutputsOf(output, scope, &call.outputs));
    }
    RETURN_IF_ERROR(CheckNumOutputs(schema, call));
    if (WritesRunningStatistics(call)) return ImportNormWithStatistics(std::move(call), context);
    builder_.Append(call);
    functional_.RecordViews(call, schema);
    return absl::OkStatus();
  }

  absl::Status ImportNormWithStatistics(Node call, const NodeContext& context) {
    for (const auto& [target, value] : AppendWithStatistics(builder_, std::move(call))) {
      RETURN_IF_ERROR(functional_.Replace(target, value, context));
    }
    return absl::OkStatus();
  }

  // The archive's type of the first result.
  static std::optional<DType> StatedType(const exported::Node& node, const Scope& scope) {
    if (node.outputs.empty()) return std::nullopt;
    const exported::Argument& output = node.outputs[0];
    const bool is_list = output.tag == Tag::kTensors && !output.items.empty();
    const auto found = scope.graph.tensors.find(is_list ? output.items[0].name : output.text);
    return found == scope.graph.tensors.end() ? std::nullopt : found->second.dtype;
  }

  static absl::Status CheckNumOutputs(const OpSchema& schema, const Node& call) {
    for (const SchemaReturn& returned : schema.returns) {
      if (returned.is_list) return absl::OkStatus();
    }
    if (call.outputs.size() == schema.returns.size()) return absl::OkStatus();
    return DataLoss("the call has ", call.outputs.size(), " results, but the op returns ",
                    schema.returns.size());
  }

  // One result of a call: a tensor or a list of them.
  absl::Status ImportOutputsOf(const exported::Argument& output, Scope& scope,
                               std::vector<ValueId>* outputs) {
    std::vector<std::string> names;
    if (output.tag == Tag::kTensor) {
      names.push_back(output.text);
    } else if (output.tag == Tag::kTensors) {
      for (const exported::Item& item : output.items) names.push_back(item.name);
    } else {
      return Unimplemented("a result that is no tensor is not supported");
    }
    for (const std::string& name : names) {
      ASSIGN_OR_RETURN(TensorType type, ImportType(scope, name));
      outputs->push_back(builder_.AddValue(name, std::move(type)));
      RETURN_IF_ERROR(Define(scope, name, outputs->back()));
    }
    return absl::OkStatus();
  }

  static absl::Status Define(Scope& scope, const std::string& name, ValueId id) {
    if (scope.tensors.emplace(name, id).second) return absl::OkStatus();
    return DataLoss("%", name, " is defined twice, so the archive is damaged");
  }

  absl::Status ImportWrite(const OpSchema& schema, const std::vector<Argument>& args,
                           const exported::Node& node, const NodeContext& context, Scope& scope) {
    const bool has_result = node.outputs.size() == 1 && node.outputs[0].tag == Tag::kTensor;
    const std::string name = has_result ? node.outputs[0].text : "";
    if (IsInPlaceView(schema.name)) {
      ASSIGN_OR_RETURN(TensorType type, ImportType(scope, name));
      ASSIGN_OR_RETURN(const ValueId view,
                       functional_.Reshape(schema, args, name, std::move(type), context));
      return Define(scope, name, view);
    }
    ASSIGN_OR_RETURN(const ValueId result, functional_.Write(schema, args, name, context));
    return has_result ? Define(scope, name, result) : absl::OkStatus();
  }

  // X.out(args..., target). Autocast leaves such calls alone.
  absl::Status ImportWriteToOut(const OpSchema& returning, std::vector<Argument> args,
                                const exported::Node& node, const NodeContext& context,
                                Scope& scope) {
    const auto* target = std::get_if<ValueId>(&args.back());
    if (target == nullptr || node.outputs.size() != 1 || node.outputs[0].tag != Tag::kTensor) {
      return DataLoss("the call gives no tensor to write its result to");
    }
    const ValueId out = *target;
    args.pop_back();
    RETURN_IF_ERROR(CheckSupported(returning, args));
    const std::string& name = node.outputs[0].text;
    ASSIGN_OR_RETURN(TensorType type, ImportType(scope, name));
    ASSIGN_OR_RETURN(const ValueId result, functional_.WriteResult(returning, std::move(args), out,
                                                                   name, std::move(type), context));
    return Define(scope, name, result);
  }

  // wrap_with_set_grad_enabled(enabled, graph, operands...)
  absl::Status ImportGradMode(const exported::Node& node, Scope& scope) {
    if (node.inputs.size() < 2 || node.inputs[0].value.tag != Tag::kBool) {
      return DataLoss("the arguments of the region are damaged");
    }
    const bool is_enabled = node.inputs[0].value.integer != 0;
    return ImportRegion(node, 1, scope, !is_enabled, scope.autocast);
  }

  // wrap_with_autocast(device, dtype, enabled, cache_enabled, graph, operands...)
  absl::Status ImportAutocast(const exported::Node& node, Scope& scope) {
    constexpr size_t kGraphIndex = 4;
    if (node.inputs.size() <= kGraphIndex || node.inputs[0].value.tag != Tag::kString) {
      return DataLoss("the arguments of the region are damaged");
    }
    const std::string& device = node.inputs[0].value.text;
    if (device != "cpu" && device != "cuda") {
      return Unimplemented("autocast for device ", device, " is not supported, only cpu and cuda");
    }
    std::optional<DType> dtype = device == "cpu" ? DType::kBF16 : DType::kF16;
    if (node.inputs[1].value.tag == Tag::kScalarType) {
      dtype = exported::DTypeFromScalarType(node.inputs[1].value.integer);
    }
    if (dtype != DType::kBF16 && dtype != DType::kF16) {
      return Unimplemented(
          "autocast to an element type other than bfloat16 and float16 is not "
          "supported");
    }
    const bool is_enabled = node.inputs[2].value.integer != 0;
    const bool caches = node.inputs[3].value.tag == Tag::kBool && node.inputs[3].value.integer != 0;
    return ImportRegion(node, kGraphIndex, scope, scope.no_grad,
                        std::make_shared<AutocastRegion>(device, *dtype, is_enabled, caches));
  }

  // Inlines the nested graph at `graph_index`; what follows it are its inputs.
  absl::Status ImportRegion(const exported::Node& node, size_t graph_index, Scope& scope,
                            bool no_grad, std::shared_ptr<AutocastRegion> autocast) {
    const std::shared_ptr<const exported::Graph>& body = node.inputs[graph_index].value.graph;
    const size_t num_operands = node.inputs.size() - graph_index - 1;
    if (body == nullptr || body->inputs.size() != num_operands ||
        body->outputs.size() != node.outputs.size()) {
      return DataLoss("the nested graph does not fit its call, so the archive is damaged");
    }
    Scope inner{*body, {}, no_grad, std::move(autocast)};
    for (size_t i = 0; i < num_operands; ++i) {
      const exported::Argument& operand = node.inputs[graph_index + 1 + i].value;
      if (body->inputs[i].tag != Tag::kTensor) continue;  // sizes are known by their own table
      if (operand.tag != Tag::kTensor) return DataLoss("the nested graph does not fit its call");
      ASSIGN_OR_RETURN(const ValueId id, FindTensor(scope, operand.text));
      RETURN_IF_ERROR(Define(inner, body->inputs[i].text, id));
    }
    RETURN_IF_ERROR(ImportNodes(inner));
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      if (node.outputs[i].tag != Tag::kTensor) continue;
      if (body->outputs[i].tag != Tag::kTensor) return DataLoss("the nested graph is damaged");
      ASSIGN_OR_RETURN(const ValueId id, FindTensor(inner, body->outputs[i].text));
      RETURN_IF_ERROR(Define(scope, node.outputs[i].text, id));
    }
    return absl::OkStatus();
  }

  absl::Status ImportOutputs(const Scope& scope) {
    const std::vector<std::string> names = OutputNames(program_);
    for (size_t i = 0; i < program_.outputs.size(); ++i) {
      const exported::OutputSpec& spec = program_.outputs[i];
      if (spec.kind == "buffer_mutation") continue;
      if (spec.kind != "user_output" && spec.kind != "loss_output") {
        return Unimplemented("the model writes ", spec.target, " (", spec.kind,
                             "), which is not supported; make it an output");
      }
      if (spec.value.tag != Tag::kTensor) continue;  // a number or None, of no use in training
      ASSIGN_OR_RETURN(const ValueId id, FindTensor(scope, spec.value.text), "output ", names[i]);
      graph_.outputs.push_back(id);
      graph_.output_names.push_back(names[i]);
    }
    if (graph_.outputs.empty()) {
      return InvalidArgument("the graph returns no tensor; export a module that returns its loss");
    }
    RETURN_IF_ERROR(ImportWrittenBuffers());
    return ImportMutations(scope);
  }

  // What writes in place have left in buffers.
  absl::Status ImportWrittenBuffers() {
    const std::vector<GraphInput> inputs = graph_.inputs;
    for (const GraphInput& input : inputs) {
      if (input.kind != InputKind::kBuffer) continue;
      ASSIGN_OR_RETURN(const ValueId value, functional_.Current(input.value), "buffer ",
                       input.name);
      if (value != input.value) RETURN_IF_ERROR(AddWrite(input.value, value));
    }
    return absl::OkStatus();
  }

  // What a functional export says of them.
  absl::Status ImportMutations(const Scope& scope) {
    for (const exported::OutputSpec& spec : program_.outputs) {
      if (spec.kind != "buffer_mutation") continue;
      const auto buffer = std::ranges::find_if(program_.inputs, [&](const auto& each) {
        return each.role == exported::InputRole::kBuffer && each.name == spec.target;
      });
      if (buffer == program_.inputs.end() || spec.value.tag != Tag::kTensor) {
        return DataLoss("the model writes ", spec.target, ", which is none of its buffers");
      }
      ASSIGN_OR_RETURN(const ValueId value, FindTensor(scope, spec.value.text), "buffer ",
                       spec.target);
      RETURN_IF_ERROR(AddWrite(scope.tensors.at(buffer->value_name), value));
    }
    return absl::OkStatus();
  }

  absl::Status AddWrite(ValueId buffer, ValueId value) {
    const std::string& name = graph_.FindInput(buffer)->name;
    const bool is_written = std::ranges::any_of(
        graph_.writes, [&](const auto& write) { return write.second == buffer; });
    if (is_written) return DataLoss("buffer ", name, " is given two new values");
    const TensorType& type = graph_.type(buffer);
    const TensorType& given = graph_.type(value);
    if (type.dtype != given.dtype || type.sizes != given.sizes) {
      return Unimplemented("buffer ", name, " is ", PrintTensorType(type),
                           ", and what is written to it ", PrintTensorType(given),
                           "; a step leaves the sizes and the type of a buffer as they are");
    }
    graph_.AddWrite(buffer, value);
    return absl::OkStatus();
  }

  const exported::Program& program_;
  const std::map<std::string, InputFacts>& facts_;
  Graph& graph_;
  GraphBuilder builder_;
  Functionalizer functional_;
  SymbolTable symbols_;
};

}  // namespace

absl::StatusOr<Graph> ImportGraph(const exported::Program& program, std::string name,
                                  const std::map<std::string, InputFacts>& facts) {
  Graph graph;
  graph.name = std::move(name);
  RETURN_IF_ERROR(GraphImporter(program, facts, graph).Import());
  return graph;
}

}  // namespace autosp
