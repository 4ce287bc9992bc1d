#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"

namespace autosp {

// A class in each place of a dimension is a comparison with all classes, which each rank makes of
// its own tokens. What stands in the padding of tokens may be no class, and is equal to none.
//
//   before  %y = aten.one_hot.default(%x, 8)                    %x i64[2, 16]  ->  i64[2, 16, 8]
//   after   %y = to(eq(unsqueeze(%x, -1), arange(8)), i64)
//
// Requires: provable classes were checked (check-index-bounds).
absl::StatusOr<bool> SpellOutOneHot(Graph& graph, const PassContext& /*context*/) {
  GraphRewriter rewriter(graph);
  for (const Node& node : rewriter.nodes()) {
    if (node.op != "aten.one_hot.default") {
      rewriter.Keep(node);
      continue;
    }
    const TensorType type = Contiguous(graph.type(node.outputs[0]));
    TensorType column = type;
    column.sizes.back() = SymInt(1);
    const ValueId classes = rewriter.EmitOne(node, "aten.unsqueeze.default",
                                             {node.args[0], SymInt(-1)}, Contiguous(column));
    const ValueId all = EmitRange(rewriter, node, 0, type.sizes.back().value);
    const ValueId is_class = rewriter.EmitOne(node, "aten.eq.Tensor", {classes, all},
                                              ContiguousOf(DType::kBool, type.sizes));
    rewriter.Replace(node.outputs[0], CastTo(node, is_class, type.dtype, rewriter));
  }
  return rewriter.Finish();
}

}  // namespace autosp
