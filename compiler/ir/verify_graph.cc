#include <set>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/graph.h"

namespace autosp {
namespace {

// What the texts of graphs and programs hold (compiler/program/program_text.cc).
constexpr int64_t kMaxSize = int64_t{1} << 50;

class GraphVerifier {
 public:
  explicit GraphVerifier(const Graph& graph)
      : graph_(graph), is_defined_(graph.values.size(), false) {}

  absl::Status Verify() {
    RETURN_IF_ERROR(VerifyNames());
    for (const GraphInput& input : graph_.inputs) {
      RETURN_IF_ERROR(WithContext(Define(input.value), "input ", input.name));
    }
    for (const Node& node : graph_.nodes) RETURN_IF_ERROR(VerifyNode(node));
    if (graph_.output_names.size() != graph_.outputs.size()) {
      return InvalidArgument(graph_.outputs.size(), " outputs have ", graph_.output_names.size(),
                             " names");
    }
    for (size_t i = 0; i < graph_.outputs.size(); ++i) {
      RETURN_IF_ERROR(WithContext(VerifyUse(graph_.outputs[i]), "output ", graph_.output_names[i]));
    }
    return VerifyWrites();
  }

 private:
  // Each to a buffer, once, behind all results, and of as many elements as it has.
  absl::Status VerifyWrites() const {
    std::set<ValueId> written;
    size_t next = graph_.NumResults();
    for (const auto& [index, buffer] : graph_.writes) {
      if (index != next++) return InvalidArgument("a write stands before output ", index);
      const GraphInput* input = graph_.FindInput(buffer);
      if (input == nullptr || input->kind != InputKind::kBuffer) {
        return InvalidArgument("output ", index, " is written to what is no buffer");
      }
      if (!written.insert(buffer).second) return InvalidArgument(input->name, " is written twice");
      if (SizesOf(graph_.outputs[index]) != SizesOf(buffer)) {
        return InvalidArgument("what is written to ", input->name, " has other sizes");
      }
    }
    return absl::OkStatus();
  }

  std::vector<int64_t> SizesOf(ValueId id) const {
    std::vector<int64_t> sizes;
    for (const SymInt& size : graph_.type(id).sizes) sizes.push_back(size.value);
    return sizes;
  }

  absl::Status VerifyNames() const {
    std::unordered_set<std::string> names;
    for (const GraphValue& value : graph_.values) {
      if (value.name.empty()) return InvalidArgument("a value has no name");
      if (!names.insert(value.name).second) {
        return InvalidArgument("two values are named %", value.name);
      }
    }
    // A job names what it gives, a checkpoint what it keeps: a model may call both one thing.
    std::set<std::pair<bool, std::string>> input_names;
    for (const GraphInput& input : graph_.inputs) {
      if (!input_names.insert({input.kind == InputKind::kUser, input.name}).second) {
        return InvalidArgument("two inputs are named ", input.name);
      }
    }
    return absl::OkStatus();
  }

  absl::Status VerifyNode(const Node& node) {
    absl::Status status = VerifyOperandsAndOutputs(node);
    // Describe needs outputs that exist.
    for (const ValueId id : node.outputs) {
      if (!IsInRange(id)) return WithContext(status, node.op);
    }
    return status.ok() ? status : WithContext(status, Describe(graph_, node));
  }

  absl::Status VerifyOperandsAndOutputs(const Node& node) {
    if (node.op.empty()) return InvalidArgument("a node has no op");
    for (const Argument& argument : node.args) RETURN_IF_ERROR(VerifyArgument(argument));
    for (const ValueId id : node.outputs) RETURN_IF_ERROR(Define(id));
    return absl::OkStatus();
  }

  absl::Status VerifyArgument(const Argument& argument) const {
    for (const ValueId id :
         OperandsOf(Node{.op = "", .args = {argument}, .outputs = {}, .source = {}})) {
      RETURN_IF_ERROR(VerifyUse(id));
    }
    if (const auto* value = std::get_if<SymInt>(&argument)) return VerifySymInt(*value);
    if (const auto* list = std::get_if<IntList>(&argument)) {
      for (const SymInt& value : *list) RETURN_IF_ERROR(VerifySymInt(value));
    }
    return absl::OkStatus();
  }

  // The number beside an expression must be its value at the exported sizes.
  absl::Status VerifySymInt(const SymInt& value) const {
    if (value.expr.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const int64_t expected, value.expr.Evaluate(graph_.symbols));
    if (expected == value.value) return absl::OkStatus();
    return InvalidArgument(value.value, " stands for ", value.expr.ToString(), ", which is ",
                           expected, " at the exported sizes");
  }

  absl::Status VerifyUse(ValueId id) const {
    if (!IsInRange(id)) return InvalidArgument("value ", id.index, " does not exist");
    if (!is_defined_[id.index]) {
      return InvalidArgument("%", graph_.value(id).name, " is used before it is defined");
    }
    return absl::OkStatus();
  }

  absl::Status Define(ValueId id) {
    if (!IsInRange(id)) return InvalidArgument("value ", id.index, " does not exist");
    if (is_defined_[id.index]) {
      return InvalidArgument("%", graph_.value(id).name, " is defined twice");
    }
    is_defined_[id.index] = true;
    const TensorType& type = graph_.type(id);
    if (type.strides.size() != type.sizes.size()) {
      return InvalidArgument("%", graph_.value(id).name, " has ", type.strides.size(),
                             " strides for ", type.sizes.size(), " dimensions");
    }
    for (const SymInt& size : type.sizes) {
      RETURN_IF_ERROR(WithContext(VerifySymInt(size), "%", graph_.value(id).name));
      if (size.value >= 0 && size.value <= kMaxSize) continue;
      return InvalidArgument("%", graph_.value(id).name, " has a dimension of ", size.value,
                             "; dimensions are 0 to ", kMaxSize);
    }
    return absl::OkStatus();
  }

  bool IsInRange(ValueId id) const {
    return id.valid() && static_cast<size_t>(id.index) < graph_.values.size();
  }

  const Graph& graph_;
  std::vector<bool> is_defined_;
};

}  // namespace

absl::Status VerifyGraph(const Graph& graph) { return GraphVerifier(graph).Verify(); }

}  // namespace autosp
