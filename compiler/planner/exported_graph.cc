#include "compiler/planner/exported_graph.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/random_ops.h"
#include "compiler/ir/text_cursor.h"
#include "compiler/passes/pass.h"
#include "compiler/planner/compile_job.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

bool HasSizesOf(const Graph& graph, const InputRoles& roles, const TrainingSpec& training) {
  for (const GraphInput& input : graph.inputs) {
    const auto found = roles.find(input.name);
    if (input.kind != InputKind::kUser || found == roles.end()) continue;
    const std::vector<SymInt>& sizes = graph.type(input.value).sizes;
    for (size_t dim = 0; dim < sizes.size() && dim < found->second.size(); ++dim) {
      const DimRole role = found->second[dim];
      if (role == DimRole::kBatch && sizes[dim].value != training.global_batch_size) return false;
      if (role == DimRole::kSequence && sizes[dim].value != training.seq_len) return false;
    }
  }
  return true;
}

int64_t BytesOf(const TensorType& type) { return type.numel() * SizeOf(type.dtype); }

// Every value as if it were kept, and a gradient for each parameter and for the largest values.
int64_t NeededBytes(const Graph& graph) {
  int64_t bytes = 0;
  int64_t largest = 0;
  for (const GraphValue& value : graph.values) {
    bytes += BytesOf(value.type);
    largest = std::max(largest, BytesOf(value.type));
  }
  for (const GraphInput& input : graph.inputs) {
    if (input.kind == InputKind::kParameter) bytes += BytesOf(graph.type(input.value));
  }
  return bytes + 2 * largest;
}

// Of the elements that a node draws a number for.
int64_t NumDrawn(const Graph& graph, const Node& node) {
  const TensorType& result = graph.type(node.outputs[0]);
  if (node.op != kSdpa) return result.numel();
  const SymInt& keys = graph.type(TensorArgument(node.args, 1)).sizes.end()[-2];
  return result.numel() / result.sizes.back().value * keys.value;
}

// Parts of a size that they do not follow by themselves are joined first, as in plans.
absl::Status Resize(Graph& graph, const PassContext& context) {
  Graph with_parts = graph;
  absl::Status status = ResizeInputs(graph, context).status();
  if (status.ok()) return status;
  ASSIGN_OR_RETURN(const bool has_joined, JoinChunks(with_parts, context));
  if (!has_joined) return status;
  graph = std::move(with_parts);
  return ResizeInputs(graph, context).status();
}

}  // namespace

absl::StatusOr<ExportedGraph> MakeExportedGraph(const ImportedModel& model, const JobSpec& job) {
  PassContext context;
  ASSIGN_OR_RETURN(context.roles, RolesOf(model.graph, job));
  context.batch_size = job.training.global_batch_size;
  context.seq_len = job.training.seq_len;
  ExportedGraph exported{.graph = model.graph_as_drawn.value_or(model.graph)};
  exported.is_resized = !HasSizesOf(model.graph, context.roles, job.training);
  if (exported.is_resized) RETURN_IF_ERROR(Resize(exported.graph, context));
  exported.needed_bytes = NeededBytes(exported.graph);
  return exported;
}

std::string WhyNotComparable(const Graph& graph, const Program& one_device) {
  std::map<int64_t, int64_t> num_drawn;  // in the program, by number
  for (const Section& section : one_device.sections) {
    for (const Instruction& instruction : section.body) {
      const auto number = instruction.attributes.find("node");
      if (number == instruction.attributes.end()) continue;
      const auto* value = std::get_if<SymInt>(&number->second);
      if (value == nullptr) continue;
      num_drawn[value->value] = one_device.LocalNumel(one_device.value(instruction.results[0]));
    }
  }
  for (const Node& node : graph.nodes) {
    const std::optional<size_t> argument = DrawNumberArgument(node.op);
    const auto* number = argument ? ArgumentAs<SymInt>(node.args, *argument) : nullptr;
    if (number == nullptr) continue;
    const auto found = num_drawn.find(number->value);
    if (found == num_drawn.end() || found->second == NumDrawn(graph, node)) continue;
    return absl::StrCat(Describe(graph, node), " draws ", NumDrawn(graph, node),
                        " random numbers, and the plan ", found->second,
                        ", some of them for tokens that are cut off later");
  }
  return "";
}

}  // namespace autosp
