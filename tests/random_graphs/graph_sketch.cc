#include "tests/random_graphs/graph_sketch.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "compiler/ir/fourier.h"
#include "worker/executor/argument_stack.h"
#include "worker/executor/aten_op.h"
#include "worker/executor/torch_types.h"
#include "worker/verify/eager_fourier.h"

namespace autosp {
namespace {

// What the importer writes for an argument that the archive leaves out.
Argument DefaultOf(const c10::Argument& parameter) {
  const std::string& name = parameter.name();
  if (name == "device") return EnumName{"cpu"};
  if (name == "pin_memory") return false;
  AUTOSP_CHECK(parameter.default_value().has_value(), name, " is missing");
  const c10::IValue& value = *parameter.default_value();
  if (value.isNone()) return None{};
  if (value.isBool()) return value.toBool();
  if (value.isInt()) return SymInt(value.toInt());
  if (value.isDouble()) return value.toDouble();
  if (value.isString()) return value.toStringRef();
  AUTOSP_CHECK(value.isIntList(), name, " has a default of another kind");
  return Ints(value.toIntVector());
}

TensorType TypeOf(const at::Tensor& tensor) {
  TensorType type;
  type.dtype = FromScalarType(tensor.scalar_type()).value();
  for (const int64_t size : tensor.sizes()) type.sizes.emplace_back(size);
  type.strides = tensor.strides().vec();
  return type;
}

}  // namespace

Argument Ints(const std::vector<int64_t>& values) { return IntList(values.begin(), values.end()); }

ValueId GraphSketch::Add(const std::string& name, const at::Tensor& tensor) {
  const ValueId id = graph_.AddValue(name, TypeOf(tensor));
  tensors_.push_back(tensor);
  return id;
}

ValueId GraphSketch::Input(const std::string& name, const at::Tensor& example) {
  for (const GraphInput& input : graph_.inputs) {
    if (input.name == name) return input.value;
  }
  const ValueId id = Add(name, example);
  graph_.inputs.push_back({.value = id, .kind = InputKind::kUser, .name = name, .aliases = {}});
  return id;
}

ValueId GraphSketch::Parameter(const std::string& name, const std::vector<int64_t>& sizes,
                               bool is_trained) {
  std::string unique = name;
  for (int suffix = 2; std::ranges::count(graph_.inputs, unique, &GraphInput::name) > 0; ++suffix) {
    unique =
        absl::StrCat(name.substr(0, name.rfind('.')), "_", suffix, name.substr(name.rfind('.')));
  }
  std::string value_name = "p_" + unique;
  std::ranges::replace(value_name, '.', '_');
  const ValueId id = Add(value_name, at::full(sizes, 0.5, at::kFloat));
  graph_.inputs.push_back({.value = id,
                           .kind = InputKind::kParameter,
                           .name = unique,
                           .aliases = {},
                           .requires_grad = is_trained});
  return id;
}

std::vector<ValueId> GraphSketch::CallForAll(const std::string& op, std::vector<Argument> args) {
  const auto handle = FindAtenOp(op);
  AUTOSP_CHECK(handle.ok(), handle.status().message());
  const auto& parameters = handle->schema().arguments();
  while (args.size() < parameters.size()) args.push_back(DefaultOf(parameters[args.size()]));
  const auto arguments = ArgumentStack::Make(handle->schema(), args);
  AUTOSP_CHECK(arguments.ok(), op, ": ", arguments.status().message());
  torch::jit::Stack stack;
  const absl::Status pushed = arguments->Push(tensors_, stack);
  AUTOSP_CHECK(pushed.ok(), op, ": ", pushed.message());
  const absl::Status called = CatchTorch([&] {
    handle->callBoxed(stack);
    return absl::OkStatus();
  });
  AUTOSP_CHECK(called.ok(), op, ": ", called.message());
  Node node;
  node.op = op;
  node.args = std::move(args);
  const std::string name = op.substr(5, op.find('.', 5) - 5);
  for (const c10::IValue& value : stack) {
    if (value.isTensor()) {
      node.outputs.push_back(Add(name, value.toTensor()));
      continue;
    }
    for (const at::Tensor& tensor : value.toTensorVector())
      node.outputs.push_back(Add(name, tensor));
  }
  graph_.nodes.push_back(node);
  return node.outputs;
}

ValueId GraphSketch::CallTransform(const std::string& op, std::vector<Argument> args) {
  Node node;
  node.op = op;
  node.args = std::move(args);
  absl::StatusOr<at::Tensor> result;
  const absl::Status called = CatchTorch([&] {
    result = TransformEagerly(node, tensors_[std::get<ValueId>(node.args[0]).index]);
    return result.status();
  });
  AUTOSP_CHECK(called.ok(), op, ": ", called.message());
  node.outputs = {Add("spectrum", result->contiguous())};
  graph_.nodes.push_back(node);
  return node.outputs[0];
}

ValueId GraphSketch::Call(const std::string& op, std::vector<Argument> args) {
  if (IsFourier(op)) return CallTransform(op, std::move(args));
  const std::vector<ValueId> results = CallForAll(op, std::move(args));
  AUTOSP_CHECK(results.size() == 1, op, " has ", results.size(), " results");
  return results[0];
}

std::vector<int64_t> GraphSketch::Sizes(ValueId value) const {
  return tensors_[value.index].sizes().vec();
}

int64_t GraphSketch::Size(ValueId value, int64_t dim) const {
  return tensors_[value.index].size(dim);
}

Graph GraphSketch::Finish(ValueId loss) {
  graph_.name = "random";
  graph_.outputs = {loss};
  graph_.output_names = {"loss"};
  Graph graph = graph_;
  DropUnused(graph);
  return graph;
}

void DropUnused(Graph& graph) {
  std::vector<bool> is_used(graph.values.size(), false);
  for (const ValueId output : graph.outputs) is_used[output.index] = true;
  std::vector<Node> kept;
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    Node& node = graph.nodes[i];
    if (std::ranges::none_of(node.outputs, [&](ValueId id) { return is_used[id.index]; })) continue;
    for (const ValueId output : node.outputs) is_used[output.index] = true;
    for (const ValueId operand : OperandsOf(node)) is_used[operand.index] = true;
    kept.push_back(std::move(node));
  }
  std::ranges::reverse(kept);
  graph.nodes = std::move(kept);
  std::erase_if(graph.inputs, [&](const GraphInput& input) { return !is_used[input.value.index]; });
  // Of a graph of its own: AddValue keeps what it knows of the names of one.
  Graph compact;
  compact.name = graph.name;
  compact.symbols = graph.symbols;
  compact.inputs = graph.inputs;
  compact.nodes = graph.nodes;
  compact.outputs = graph.outputs;
  compact.output_names = graph.output_names;
  std::vector<ValueId> new_ids(graph.values.size());
  for (size_t i = 0; i < graph.values.size(); ++i) {
    if (is_used[i]) new_ids[i] = compact.AddValue(graph.values[i].name, graph.values[i].type);
  }
  const auto renumber = [&](ValueId& id) { id = new_ids[id.index]; };
  for (GraphInput& input : compact.inputs) renumber(input.value);
  for (Node& node : compact.nodes) {
    for (Argument& argument : node.args) ForEachValue(argument, renumber);
    std::ranges::for_each(node.outputs, renumber);
  }
  std::ranges::for_each(compact.outputs, renumber);
  graph = std::move(compact);
}

}  // namespace autosp
