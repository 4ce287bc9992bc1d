#include "compiler/import/graph_builder.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace autosp {
namespace {

// The name without its version: "x" of "x.1".
std::string_view Unversioned(std::string_view name) {
  const size_t end = name.find_last_not_of("0123456789");
  const bool has_version = end != std::string_view::npos && end > 0 && end + 1 < name.size();
  return has_version && name[end] == '.' ? name.substr(0, end) : name;
}

std::string CleanName(std::string_view name) {
  std::string clean(Unversioned(name));
  for (char& c : clean) {
    if (!absl::ascii_isalnum(c) && c != '_' && c != '.') c = '_';
  }
  return clean.empty() ? "value" : clean;
}

}  // namespace

ValueId GraphBuilder::AddValue(std::string_view name, TensorType type) {
  std::string unique = CleanName(name);
  // No other name can collide: none but these ends in a point and digits.
  if (const int version = num_versions_[unique]++; version > 0) {
    absl::StrAppend(&unique, ".", version);
  }
  graph_.values.push_back({std::move(unique), std::move(type)});
  requires_grad_.push_back(false);
  is_input_.push_back(false);
  return ValueId{static_cast<int32_t>(graph_.values.size()) - 1};
}

void GraphBuilder::AddInput(GraphInput input) {
  requires_grad_[input.value.index] = input.requires_grad;
  is_input_[input.value.index] = true;
  graph_.inputs.push_back(std::move(input));
}

void GraphBuilder::Append(Node node) {
  bool has_gradient = false;
  for (const ValueId operand : OperandsOf(node)) has_gradient |= requires_grad(operand);
  const bool is_cut = node.no_grad || node.op == "aten.detach.default";
  for (const ValueId output : node.outputs) {
    requires_grad_[output.index] = has_gradient && !is_cut && IsFloating(type(output).dtype);
  }
  graph_.nodes.push_back(std::move(node));
}

ValueId GraphBuilder::Emit(std::string op, std::vector<Argument> args, std::string_view name,
                           TensorType type, const NodeContext& context) {
  const ValueId result = AddValue(name, std::move(type));
  Append({.op = std::move(op),
          .args = std::move(args),
          .outputs = {result},
          .source = context.source,
          .no_grad = context.no_grad});
  return result;
}

ValueId GraphBuilder::EmitCast(ValueId value, DType dtype, const NodeContext& context) {
  TensorType result = type(value);
  result.dtype = dtype;
  const std::string new_name = absl::StrCat(name(value), "_", std::string(DTypeName(dtype)));
  return Emit("aten.to.dtype", {value, dtype, false, false, None()}, new_name, std::move(result),
              context);
}

}  // namespace autosp
