#include "compiler/passes/pass.h"

namespace autosp {

// Drops nodes whose results reach no output. All ops are pure by now: the importer made in-place
// ops functional and dropped assertions.
absl::StatusOr<bool> EliminateDeadCode(Graph& graph, const PassContext& /*context*/) {
  std::vector<bool> is_live(graph.values.size(), false);
  for (ValueId output : graph.outputs) is_live[output.index] = true;
  std::vector<Node> kept;
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    bool is_needed = false;
    for (ValueId output : node->outputs) is_needed = is_needed || is_live[output.index];
    if (!is_needed) continue;
    for (ValueId operand : OperandsOf(*node)) is_live[operand.index] = true;
    kept.push_back(std::move(*node));
  }
  const bool changed = kept.size() != graph.nodes.size();
  graph.nodes.assign(std::make_move_iterator(kept.rbegin()), std::make_move_iterator(kept.rend()));
  return changed;
}

}  // namespace autosp
