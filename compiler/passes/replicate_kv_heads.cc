#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/rules/op_context.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

// The smallest number of copies of each kv head with which heads split evenly over so many ranks;
// 1: none needed, 0: no number does it.
int64_t CopiesNeeded(int64_t num_heads, int64_t num_kv_heads, int64_t num_ranks) {
  if (num_kv_heads == 0 || num_heads % num_kv_heads != 0) return 0;
  const int64_t group = num_heads / num_kv_heads;
  for (int64_t copies = 1; copies <= group; ++copies) {
    if (group % copies == 0 && num_kv_heads * copies % num_ranks == 0) return copies;
  }
  return 0;
}

// A mask that is an operand belongs to pairs of all tokens: no member of a ring can hold a block of
// keys alone, so that the ring splits heads as ulysses does.
bool NeedsAllKeys(const Node& node) { return node.op == kSdpa && !IsNone(node.args[3]); }

int64_t CopiesFor(const Node& node, int64_t num_heads, int64_t num_kv_heads,
                  const PassContext& context) {
  if (NeedsAllKeys(node)) {
    const int64_t num_ranks = context.head_shards * context.ring_size;
    const int64_t copies = CopiesNeeded(num_heads, num_kv_heads, num_ranks);
    if (copies > 0) return copies;
  }
  return CopiesNeeded(num_heads, num_kv_heads, context.head_shards);
}

}  // namespace

// Fewer kv heads than ranks: each kv head is copied just often enough that heads split evenly, so
// that every rank gets the kv heads that its query heads need and no others.
//
//   before  attention(%q [B, 8, S, H], %k [B, 2, S, H], ...)      head_shards 4
//   after   attention(%q [B, 8, S, H], %k2 [B, 4, S, H], ...)     heads 0 0 1 1
absl::StatusOr<bool> ReplicateKvHeads(Graph& graph, const PassContext& context) {
  GraphRewriter rewriter(graph);
  for (const Node& node : rewriter.nodes()) {
    int64_t copies = 1;
    const bool is_attention = node.op == kSdpa || node.op == kMaskedAttention;
    if (is_attention && context.head_shards * context.ring_size > 1) {
      const TensorType& query = graph.type(std::get<ValueId>(node.args[0]));
      const TensorType& key = graph.type(std::get<ValueId>(node.args[1]));
      if (query.rank() == 4 && key.rank() == 4) {
        copies = CopiesFor(node, query.sizes[1].value, key.sizes[1].value, context);
      }
    }
    if (copies <= 1) {
      rewriter.Keep(node);
      continue;
    }
    std::vector<Argument> args = node.args;
    args[1] = RepeatAlong(rewriter, node, std::get<ValueId>(node.args[1]), 1, copies);
    args[2] = RepeatAlong(rewriter, node, std::get<ValueId>(node.args[2]), 1, copies);
    const ValueId result =
        rewriter.EmitOne(node, node.op, std::move(args), graph.type(node.outputs[0]));
    rewriter.Replace(node.outputs[0], result);
  }
  return rewriter.Finish();
}

}  // namespace autosp
