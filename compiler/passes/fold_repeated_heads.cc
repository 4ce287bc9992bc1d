#include <algorithm>

#include "common/status_macros.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

// Follows the value back through views to what was repeated along heads: a value whose heads are
// the leading factors of `repeated`'s heads, where the rest came from an expand.
ValueId FindUnrepeated(const Graph& graph, const GraphFactors& factors,
                       const std::vector<int32_t>& definer, ValueId repeated) {
  const FactorDims target = factors.Of(repeated);
  if (target.size() != 4 || target[1].size() < 2) return {};
  std::vector<FactorVar> generated;
  for (ValueId at = repeated; definer[at.index] >= 0;) {
    const Node& node = graph.nodes[definer[at.index]];
    static const auto& kViews = *new std::vector<std::string_view>{
        "aten.reshape.default",   "aten.view.default",  "aten.expand.default",
        "aten.unsqueeze.default", "aten.clone.default", "aten.contiguous.default"};
    if (std::ranges::count(kViews, node.op) == 0) return {};
    for (FactorVar factor : factors.table.Resolve(factors.nodes[definer[at.index]].generated)) {
      generated.push_back(factor);
    }
    at = std::get<ValueId>(node.args[0]);
    const FactorDims dims = factors.Of(at);
    if (dims.size() != 4 || dims[1].size() >= target[1].size()) continue;
    const bool same_rest = dims[0] == target[0] && dims[2] == target[2] && dims[3] == target[3];
    const bool leading = std::equal(dims[1].begin(), dims[1].end(), target[1].begin());
    const bool rest_repeats = std::all_of(
        target[1].begin() + static_cast<std::ptrdiff_t>(dims[1].size()), target[1].end(),
        [&](FactorVar factor) { return std::ranges::count(generated, factor) > 0; });
    if (same_rest && leading && rest_repeats) return at;
  }
  return {};
}

}  // namespace

// Attention to heads that were repeated (repeat_kv: unsqueeze, expand, reshape) becomes attention
// to the grouped heads themselves, so that resharding moves each key and value head once.
//
//   before  %r = aten.reshape.default(aten.expand.default(aten.unsqueeze.default(%k, 2), ...), ...)
//           %o = aten.scaled_dot_product_attention.default(%q, %r, ..., false)
//   after   %o = aten.scaled_dot_product_attention.default(%q, %k, ..., true)      enable_gqa
//
// The proof is in the factors: the heads of %r are those of %k times a factor that an expand made.
absl::StatusOr<bool> FoldRepeatedHeads(Graph& graph, const PassContext& context) {
  ASSIGN_OR_RETURN(const GraphFactors factors, InferFactors(graph, context.roles));
  const std::vector<int32_t> definer = DefiningNodes(graph);
  bool changed = false;
  for (Node& node : graph.nodes) {
    if (node.op != kSdpa && node.op != kMaskedAttention) continue;
    const ValueId key = FindUnrepeated(graph, factors, definer, std::get<ValueId>(node.args[1]));
    const ValueId value = FindUnrepeated(graph, factors, definer, std::get<ValueId>(node.args[2]));
    if (!key.valid() || !value.valid()) continue;
    if (graph.type(key).sizes[1] != graph.type(value).sizes[1]) continue;
    node.args[1] = key;
    node.args[2] = value;
    if (node.op == kSdpa) node.args[7] = true;
    changed = true;
  }
  return changed;
}

}  // namespace autosp
