#include "compiler/ir/argument_access.h"
#include "compiler/passes/pass.h"
#include "compiler/passes/spell_out_attention.h"
#include "compiler/passes/trained_values.h"
#include "compiler/rules/op_rule.h"

namespace autosp {

// Attention whose mask is trained (a bias for each head and distance) is spelled out: the kernels
// give no gradient to a mask.
//
//   before  %o = aten.scaled_dot_product_attention.default(%q, %k, %v, %bias, ...)
//   after   %s = aten.add.Tensor(aten.matmul.default(%q * scale, %k^T), %bias, 1)
//           %o = aten.matmul.default(aten._softmax.default(%s, -1, false), %v)
absl::StatusOr<bool> ExpandTrainedBias(Graph& graph, const PassContext& /*context*/) {
  const std::vector<bool> depends = DependsOnParameters(graph);
  GraphRewriter rewriter(graph);
  for (const Node& node : rewriter.nodes()) {
    const ValueId mask = node.op == kSdpa ? TensorArgument(node.args, 3) : ValueId{};
    if (!mask.valid() || !depends[mask.index]) {
      rewriter.Keep(node);
      continue;
    }
    const SpelledAttention spelled = SpellOutWeights(rewriter, node);
    rewriter.Replace(node.outputs[0], EmitWeighted(rewriter, node, spelled.weights, spelled.value));
  }
  return rewriter.Finish();
}

}  // namespace autosp
