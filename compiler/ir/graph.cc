#include "compiler/ir/graph.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace autosp {

int64_t TensorType::numel() const {
  int64_t product = 1;
  for (const SymInt& size : sizes) product *= size.value;
  return product;
}

std::vector<int64_t> ContiguousStrides(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    // As in ATen: an empty dimension counts as one, so that strides stay positive.
    stride *= std::max<int64_t>(sizes[i], 1);
  }
  return strides;
}

void Graph::SetValues(std::vector<GraphValue> new_values) {
  values = std::move(new_values);
  next_suffix_.clear();
  num_indexed_ = 0;
}

ValueId Graph::AddValue(std::string_view name, TensorType type) {
  for (; num_indexed_ < values.size(); ++num_indexed_) {
    next_suffix_.try_emplace(values[num_indexed_].name, 1);
  }
  std::string unique(name);
  // A name that is taken has been counted from 1 on, and names are never given back.
  const auto taken = next_suffix_.find(unique);
  if (taken != next_suffix_.end()) {
    int64_t& suffix = taken->second;
    while (next_suffix_.contains(unique)) {
      unique = absl::StrCat(std::string(name), "_", suffix++);
    }
  }
  values.push_back({std::move(unique), std::move(type)});
  return ValueId{static_cast<int32_t>(values.size()) - 1};
}

const GraphInput* Graph::FindInput(ValueId id) const {
  const auto input = std::ranges::find(inputs, id, &GraphInput::value);
  return input == inputs.end() ? nullptr : &*input;
}

std::vector<std::string> Graph::ResultNames() const {
  return {output_names.begin(), output_names.begin() + static_cast<int64_t>(NumResults())};
}

void Graph::AddWrite(ValueId buffer, ValueId value) {
  writes[outputs.size()] = buffer;
  outputs.push_back(value);
  output_names.push_back(FindInput(buffer)->name);
}

std::vector<ValueId> OperandsOf(const Node& node) {
  std::vector<ValueId> operands;
  for (const Argument& argument : node.args) {
    ForEachValue(argument, [&](ValueId id) { operands.push_back(id); });
  }
  return operands;
}

std::string Describe(const Graph& graph, const Node& node) {
  const std::string& module = node.source.module();
  std::string text = module.empty() ? "" : absl::StrCat(module, ": ");
  text += node.op;
  if (!node.outputs.empty()) absl::StrAppend(&text, " (%", graph.value(node.outputs[0]).name, ")");
  const std::string& location = node.source.location();
  if (!location.empty()) absl::StrAppend(&text, " at ", location);
  return text;
}

}  // namespace autosp
