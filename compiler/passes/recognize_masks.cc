#include "compiler/analysis/index_expr.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"

namespace autosp {
namespace {

enum class MaskKind { kDense, kAll, kCausal };

// `k - q <= 0` for the two last dimensions of a mask of this rank.
bool IsCausalConjunct(const IndexExpr& expr, size_t rank) {
  if (expr.kind != IndexExpr::Kind::kLessEqual || expr.affine.constant != 0) return false;
  const std::string query = "i" + std::to_string(rank - 2);
  const std::string key = "i" + std::to_string(rank - 1);
  return expr.affine.terms.size() == 2 && expr.affine.terms.contains(query) &&
         expr.affine.terms.contains(key) && expr.affine.terms.at(query) == -1 &&
         expr.affine.terms.at(key) == 1;
}

MaskKind Classify(const Graph& graph, ValueId mask, IndexEvaluator& evaluator) {
  const TensorType& type = graph.type(mask);
  if (type.dtype != DType::kBool || type.rank() < 2) return MaskKind::kDense;
  const IndexExprPtr element = evaluator.Element(mask);
  if (element->kind == IndexExpr::Kind::kAffine && element->affine.terms.empty()) {
    return element->affine.constant != 0 ? MaskKind::kAll : MaskKind::kDense;
  }
  const auto rank = static_cast<size_t>(type.rank());
  return IsCausalConjunct(*element, rank) ? MaskKind::kCausal : MaskKind::kDense;
}

}  // namespace

// Attention with a mask that is provably causal, or provably all true, says so in an attribute; the
// dense [S, S] tensor is then dead. The proof evaluates the mask as a function of its indices.
//
//   before  %o = aten.scaled_dot_product_attention.default(%q, %k, %v, %mask, 0.0, false, ...)
//   after   %o = aten.scaled_dot_product_attention.default(%q, %k, %v, none, 0.0, true, ...)
//
// Causal needs as many queries as keys: ATen aligns is_causal at the upper left.
absl::StatusOr<bool> RecognizeMasks(Graph& graph, const PassContext& /*context*/) {
  IndexEvaluator evaluator(graph);
  std::map<ValueId, MaskKind> kinds;
  bool changed = false;
  for (Node& node : graph.nodes) {
    if (node.op != "aten.scaled_dot_product_attention.default") continue;
    const auto* mask = std::get_if<ValueId>(&node.args[3]);
    if (mask == nullptr) continue;
    if (!kinds.contains(*mask)) kinds[*mask] = Classify(graph, *mask, evaluator);
    const MaskKind kind = kinds[*mask];
    const TensorType& query = graph.type(std::get<ValueId>(node.args[0]));
    const TensorType& key = graph.type(std::get<ValueId>(node.args[1]));
    const bool square = query.sizes[query.sizes.size() - 2] == key.sizes[key.sizes.size() - 2];
    if (kind == MaskKind::kDense || (kind == MaskKind::kCausal && !square)) continue;
    node.args[3] = None{};
    if (kind == MaskKind::kCausal) node.args[5] = true;
    changed = true;
  }
  return changed;
}

}  // namespace autosp
