#include <optional>
#include <string_view>
#include <vector>

#include "compiler/analysis/index_expr.h"
#include "compiler/ir/argument_access.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/passes/size_dependence.h"

namespace autosp {
namespace {

// How many values the result of an op can have, from 0 on; nullopt: any number.
std::optional<int64_t> CountOfValues(const Graph& graph, const Node& node, ValueId value) {
  if (node.op == "aten.remainder.Scalar") return IntegerArgument(node.args, 1);
  const bool is_largest = node.op == "aten.argmax.default" || node.op == "aten.argmin.default";
  const bool is_second =
      node.op == "aten.topk.default" || node.op == "aten.max.dim" || node.op == "aten.min.dim";
  if (!is_largest && !(is_second && node.outputs[1] == value)) return std::nullopt;
  const TensorType& type = graph.type(TensorArgument(node.args, 0));
  const bool is_topk = node.op == "aten.topk.default";
  const std::optional<int64_t> dim = IntegerArgument(node.args, is_topk ? 2 : 1);
  if (!dim || type.rank() == 0) return std::nullopt;
  return type.sizes[*dim < 0 ? *dim + type.rank() : *dim].value;
}

// Whether classes cannot be others than those that there are, whatever the data.
class KnownClasses {
 public:
  explicit KnownClasses(const Graph& graph)
      : graph_(graph), evaluator_(graph), definer_(DefiningNodes(graph)) {}

  bool AreKnown(ValueId classes, int64_t num_classes) {
    // Checked by check-index-bounds.
    const IndexExprPtr element = evaluator_.Element(classes);
    int64_t low = 0;
    int64_t high = 0;
    const bool is_place =
        element->kind == IndexExpr::Kind::kAffine && evaluator_.Range(element->affine, &low, &high);
    if (is_place) return low >= 0 && high < num_classes;
    while (definer_[classes.index] >= 0) {
      const Node& node = graph_.nodes[definer_[classes.index]];
      if (const auto count = CountOfValues(graph_, node, classes)) {
        return *count > 0 && *count <= num_classes;
      }
      if (!MovesElements(node)) return false;
      classes = TensorArgument(node.args, 0);
    }
    return false;
  }

 private:
  const Graph& graph_;
  IndexEvaluator evaluator_;
  const std::vector<int32_t> definer_;
};

}  // namespace

// A class in each place of a dimension is a comparison with all classes, which each rank makes of
// its own tokens. Where classes are data they are looked up in the list of classes, so that one
// that there is not fails in the step, as in PyTorch: compared, it would be equal to none.
//
//   before  %y = aten.one_hot.default(%x, 8)                    %x i64[2, 16]  ->  i64[2, 16, 8]
//   after   %classes = arange(8)
//           %y = to(eq(embedding(unsqueeze(%classes, -1), %x), %classes), i64)
//
// Requires: provable classes were checked (check-index-bounds).
absl::StatusOr<bool> SpellOutOneHot(Graph& graph, const PassContext& /*context*/) {
  std::vector<bool> are_known;
  KnownClasses known(graph);
  for (const Node& node : graph.nodes) {
    are_known.push_back(node.op == "aten.one_hot.default" &&
                        known.AreKnown(TensorArgument(node.args, 0),
                                       graph.type(node.outputs[0]).sizes.back().value));
  }
  GraphRewriter rewriter(graph);
  size_t index = 0;
  for (const Node& node : rewriter.nodes()) {
    const bool is_known = are_known[index++];
    if (node.op != "aten.one_hot.default") {
      rewriter.Keep(node);
      continue;
    }
    const TensorType type = Contiguous(graph.type(node.outputs[0]));
    TensorType column = type;
    column.sizes.back() = SymInt(1);
    const ValueId all = EmitRange(rewriter, node, 0, type.sizes.back().value);
    ValueId classes;
    if (is_known) {
      classes = rewriter.EmitOne(node, "aten.unsqueeze.default", {node.args[0], SymInt(-1)},
                                 Contiguous(column));
    } else {
      const ValueId table =
          rewriter.EmitOne(node, "aten.unsqueeze.default", {all, SymInt(-1)},
                           ContiguousOf(type.dtype, {type.sizes.back(), SymInt(1)}));
      classes =
          rewriter.EmitOne(node, "aten.embedding.default",
                           {table, node.args[0], SymInt(-1), false, false}, Contiguous(column));
    }
    const ValueId is_class = rewriter.EmitOne(node, "aten.eq.Tensor", {classes, all},
                                              ContiguousOf(DType::kBool, type.sizes));
    rewriter.Replace(node.outputs[0], CastTo(node, is_class, type.dtype, rewriter));
  }
  return rewriter.Finish();
}

}  // namespace autosp
