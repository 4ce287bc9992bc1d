#include "compiler/planner/exported_graph.h"

#include <utility>
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

bool DropsElements(const Node& node) {
  if (node.op == kSdpa) return NumberArgument(node.args, 4).value_or(0) > 0;
  return node.op == "aten.dropout.default" && NumberArgument(node.args, 1).value_or(0) > 0 &&
         FlagArgument(node.args, 2).value_or(true);
}

}  // namespace

absl::StatusOr<ExportedGraph> MakeExportedGraph(const ImportedModel& model, const JobSpec& job) {
  PassContext context;
  ASSIGN_OR_RETURN(context.roles, RolesOf(model.graph, job));
  context.batch_size = job.training.global_batch_size;
  context.seq_len = job.training.seq_len;
  ExportedGraph exported{.graph = model.graph};
  exported.is_resized = !HasSizesOf(model.graph, context.roles, job.training);
  if (exported.is_resized) RETURN_IF_ERROR(ResizeInputs(exported.graph, context).status());
  exported.needed_bytes = NeededBytes(exported.graph);
  return exported;
}

std::string WhyNotComparable(const Graph& graph) {
  for (const Node& node : graph.nodes) {
    if (DropsElements(node)) {
      return absl::StrCat(Describe(graph, node),
                          " drops elements, and plans draw masks of their own");
    }
    if (node.op == kUniform) {
      return absl::StrCat(Describe(graph, node),
                          " draws random numbers, and plans draw numbers of their own");
    }
  }
  for (const GraphValue& value : graph.values) {
    const DType dtype = value.type.dtype;
    if (!IsHalf(dtype)) continue;
    return absl::StrCat("%", value.name, " is ", Absl(DTypeName(dtype)),
                        ", in which results depend on the order of sums");
  }
  return "";
}

}  // namespace autosp
