#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

// The smallest number of copies of each kv head with which heads split evenly over sp_size ranks;
// 1: none needed, 0: no number does it.
int64_t CopiesNeeded(int64_t num_heads, int64_t num_kv_heads, int64_t sp_size) {
  if (num_kv_heads == 0 || num_heads % num_kv_heads != 0) return 0;
  const int64_t group = num_heads / num_kv_heads;
  for (int64_t copies = 1; copies <= group; ++copies) {
    if (group % copies == 0 && num_kv_heads * copies % sp_size == 0) return copies;
  }
  return 0;
}

// %k [B, Nkv, S, H] -> [B, Nkv * copies, S, H], each head `copies` times in a row.
ValueId Repeat(GraphRewriter& rewriter, const Node& node, ValueId kv, int64_t copies) {
  const TensorType type = rewriter.graph().type(kv);
  TensorType unsqueezed = type;
  unsqueezed.sizes.insert(unsqueezed.sizes.begin() + 2, SymInt(1));
  TensorType expanded = unsqueezed;
  expanded.sizes[2] = SymInt(copies);
  TensorType repeated = type;
  repeated.sizes[1] = SymInt(type.sizes[1].value * copies);
  const ValueId a =
      rewriter.EmitOne(node, "aten.unsqueeze.default", {kv, SymInt(2)}, Contiguous(unsqueezed));
  const ValueId b = rewriter.EmitOne(node, "aten.expand.default",
                                     {a, IntList(expanded.sizes), false}, Contiguous(expanded));
  return rewriter.EmitOne(node, "aten.reshape.default", {b, IntList(repeated.sizes)},
                          Contiguous(repeated));
}

}  // namespace

// Fewer kv heads than ranks: each kv head is copied just often enough that heads split evenly, so
// that every rank gets the kv heads that its query heads need and no others.
//
//   before  attention(%q [B, 8, S, H], %k [B, 2, S, H], ...)      sp_size 4
//   after   attention(%q [B, 8, S, H], %k2 [B, 4, S, H], ...)     heads 0 0 1 1
absl::StatusOr<bool> ReplicateKvHeads(Graph& graph, const PassContext& context) {
  GraphRewriter rewriter(graph);
  for (const Node& node : rewriter.nodes()) {
    int64_t copies = 1;
    if (node.op == "aten.scaled_dot_product_attention.default" && context.sp_size > 1) {
      const TensorType& query = graph.type(std::get<ValueId>(node.args[0]));
      const TensorType& key = graph.type(std::get<ValueId>(node.args[1]));
      if (query.rank() == 4 && key.rank() == 4) {
        copies = CopiesNeeded(query.sizes[1].value, key.sizes[1].value, context.sp_size);
      }
    }
    if (copies <= 1) {
      rewriter.Keep(node);
      continue;
    }
    std::vector<Argument> args = node.args;
    args[1] = Repeat(rewriter, node, std::get<ValueId>(node.args[1]), copies);
    args[2] = Repeat(rewriter, node, std::get<ValueId>(node.args[2]), copies);
    const ValueId result =
        rewriter.EmitOne(node, node.op, std::move(args), graph.type(node.outputs[0]));
    rewriter.Replace(node.outputs[0], result);
  }
  return rewriter.Finish();
}

}  // namespace autosp
