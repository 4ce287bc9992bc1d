#include "common/errors.h"
#include "compiler/analysis/index_expr.h"
#include "compiler/passes/pass.h"

namespace autosp {

// Refuses a look-up of positions beyond its table, before anything runs: learned positions end at
// the length that the model was made for. Only indices that are provable functions of their place
// are checked; token ids are data.
absl::StatusOr<bool> CheckIndexBounds(Graph& graph, const PassContext& /*context*/) {
  IndexEvaluator evaluator(graph);
  for (const Node& node : graph.nodes) {
    if (node.op != "aten.embedding.default") continue;
    const ValueId table = std::get<ValueId>(node.args[0]);
    const IndexExprPtr index = evaluator.Element(std::get<ValueId>(node.args[1]));
    int64_t low = 0;
    int64_t high = 0;
    if (index->kind != IndexExpr::Kind::kAffine || !evaluator.Range(index->affine, &low, &high)) {
      continue;
    }
    const int64_t rows = graph.type(table).sizes[0].value;
    if (low >= 0 && high < rows) continue;
    return InvalidArgument(Describe(graph, node), ": looks up row ", high < rows ? low : high,
                           " of %", graph.value(table).name, ", a table of ", rows,
                           " rows; set training.seq_len so that the last position is below ", rows);
  }
  return false;
}

}  // namespace autosp
