#include "compiler/lowering/loss_output.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"

namespace autosp {

absl::StatusOr<size_t> FindLossOutput(const Graph& graph, const std::string& wanted) {
  std::vector<std::string> scalars;
  size_t found = 0;
  int64_t index = -1;
  const bool by_index = absl::SimpleAtoi(wanted, &index);
  for (size_t i = 0; i < graph.NumResults(); ++i) {
    const TensorType& type = graph.type(graph.outputs[i]);
    const bool is_named = wanted.empty() ? type.rank() == 0 && IsFloating(type.dtype)
                          : by_index     ? static_cast<int64_t>(i) == index
                                         : graph.output_names[i] == wanted;
    if (!is_named) continue;
    scalars.push_back(graph.output_names[i]);
    found = i;
  }
  if (scalars.size() == 1 && graph.type(graph.outputs[found]).rank() == 0) return found;
  if (scalars.size() > 1) {
    return InvalidArgument("the graph has ", scalars.size(), " scalar outputs (",
                           absl::StrJoin(scalars, ", "), "); name the loss in model.loss_output");
  }
  return InvalidArgument("the graph has no scalar output ", wanted, " among its outputs (",
                         absl::StrJoin(graph.ResultNames(), ", "),
                         "); export a module whose forward returns the loss");
}

std::string NameOfLoss(const Graph& graph, ValueId loss) {
  const std::string name = absl::StrCat("%", graph.value(loss).name);
  for (const Node& node : graph.nodes) {
    const bool is_it = std::ranges::count(node.outputs, loss) > 0;
    if (is_it) return absl::StrCat(name, " of ", Describe(graph, node));
  }
  return name;
}

absl::Status HasNothingToLearn(const Graph& graph, ValueId loss) {
  return InvalidArgument("the loss ", NameOfLoss(graph, loss),
                         " depends on no trained parameter, so that nothing would be learned; "
                         "name another output in model.loss_output, or thaw a parameter that it "
                         "depends on in model.frozen");
}

void KeepLoss(size_t loss, Graph& graph) {
  std::vector<ValueId> outputs = {graph.outputs[loss]};
  std::vector<std::string> names = {graph.output_names[loss]};
  std::map<size_t, ValueId> writes;
  for (const auto& [output, buffer] : graph.writes) {
    writes[outputs.size()] = buffer;
    outputs.push_back(graph.outputs[output]);
    names.push_back(graph.output_names[output]);
  }
  graph.outputs = std::move(outputs);
  graph.output_names = std::move(names);
  graph.writes = std::move(writes);
}

}  // namespace autosp
