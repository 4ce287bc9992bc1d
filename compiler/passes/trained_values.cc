#include "compiler/passes/trained_values.h"

namespace autosp {

std::vector<bool> DependsOnParameters(const Graph& graph) {
  std::vector<bool> depends(graph.values.size(), false);
  for (const GraphInput& input : graph.inputs) {
    depends[input.value.index] =
        input.kind == InputKind::kParameter && IsFloating(graph.type(input.value).dtype);
  }
  for (const Node& node : graph.nodes) {
    if (node.no_grad || node.op == "aten.detach.default") continue;
    bool any = false;
    for (ValueId operand : OperandsOf(node)) any = any || depends[operand.index];
    for (ValueId output : node.outputs) {
      depends[output.index] = any && IsFloating(graph.type(output).dtype);
    }
  }
  return depends;
}

}  // namespace autosp
