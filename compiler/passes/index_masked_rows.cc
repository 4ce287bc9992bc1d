#include <algorithm>
#include <optional>

#include "compiler/ir/argument_access.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

// One truth value for each row of `self`, with a last dimension of size 1; invalid: the mask may
// tell elements of one row apart.
ValueId MaskOfRows(const Graph& graph, const std::vector<Node>& nodes,
                   const std::vector<int32_t>& definer, ValueId mask) {
  while (mask.valid() && graph.type(mask).rank() > 0 && graph.type(mask).sizes.back().value != 1) {
    const int32_t index = definer[mask.index];
    const bool is_expanded = index >= 0 && nodes[index].op == "aten.expand.default";
    mask = is_expanded ? TensorArgument(nodes[index].args, 0) : ValueId{};
  }
  return mask;
}

// Rows of `source` for the rows of `self` that `mask` names, in their order.
class RowScatter {
 public:
  RowScatter(GraphRewriter& rewriter, const Node& node, ValueId mask)
      : rewriter_(rewriter), node_(node), mask_(mask), type_(TypeOf(node.outputs[0])) {}

  // Whether the mask has one value for each row, and `source` is rows of that length.
  bool Fits() const {
    if (!mask_.valid() || type_.rank() < 2 || type_.numel() == 0) return false;
    const std::vector<int64_t> self = Values(TypeOf(TensorArgument(node_.args, 0)).sizes);
    std::vector<int64_t> rows = Values(type_.sizes);
    const TensorType source = TypeOf(TensorArgument(node_.args, 2));
    const bool is_of_rows =
        source.rank() > 0 && source.sizes.back().value == rows.back() && source.numel() > 0;
    if (self != rows || !is_of_rows) return false;
    rows.back() = 1;
    return Values(TypeOf(mask_).sizes) == rows;
  }

  void Replace() {
    const SymInt num_rows(type_.numel() / type_.sizes.back().value);
    std::vector<SymInt> places(type_.sizes.begin(), type_.sizes.end() - 1);
    const ValueId flat = Emit("aten.reshape.default", {mask_, IntList{num_rows}},
                              ContiguousOf(DType::kBool, {num_rows}));
    const TensorType counts = ContiguousOf(DType::kI64, {num_rows});
    const ValueId counted =
        Emit("aten.cumsum.default",
             {CastTo(node_, flat, DType::kI64, rewriter_), SymInt(0), None{}}, counts);
    const ValueId before = Emit("aten.sub.Tensor", {counted, SymInt(1), SymInt(1)}, counts);
    const ValueId index =
        Emit("aten.reshape.default", {before, IntList(places)}, ContiguousOf(DType::kI64, places));
    const ValueId source = TensorArgument(node_.args, 2);
    const TensorType from = TypeOf(source);
    const IntList table = {SymInt(from.numel() / type_.sizes.back().value), type_.sizes.back()};
    const ValueId rows =
        Emit("aten.reshape.default", {source, table}, ContiguousOf(from.dtype, table));
    const ValueId chosen = Emit("aten.index.Tensor", {rows, ValueList{index}}, type_);
    rewriter_.Replace(
        node_.outputs[0],
        Emit("aten.where.self", {mask_, chosen, TensorArgument(node_.args, 0)}, type_));
  }

 private:
  TensorType TypeOf(ValueId id) const { return Contiguous(rewriter_.graph().type(id)); }
  ValueId Emit(std::string_view op, std::vector<Argument> args, TensorType type) {
    return rewriter_.EmitOne(node_, op, std::move(args), std::move(type));
  }

  GraphRewriter& rewriter_;
  const Node& node_;
  ValueId mask_;
  TensorType type_;
};

}  // namespace

// Rows that a mask of tokens scatters are look-ups: the row of a token is the number of tokens
// before it that the mask names. Multimodal models put the features of images into the embeddings
// of text so; the count, of integers that come from token ids, is all that goes over all tokens.
//
//   before  %y = aten.masked_scatter.default(%x, expand(%m, [2, 16, 8]), %s)   %m [2, 16, 1]
//   after   %c = aten.sub.Tensor(cumsum(to(reshape(%m, [32]), i64), 0), 1, 1)
//           %y = where(%m, index(reshape(%s, [-1, 8]), [reshape(%c, [2, 16])]), %x)
//
// Tokens that the mask does not name look up some row, which is not used. Where the source has too
// few rows the look-up fails, as the scatter does.
absl::StatusOr<bool> IndexMaskedRows(Graph& graph, const PassContext& /*context*/) {
  const std::vector<int32_t> definer = DefiningNodes(graph);
  GraphRewriter rewriter(graph);
  for (const Node& node : rewriter.nodes()) {
    if (node.op == "aten.masked_scatter.default") {
      const ValueId mask = TensorArgument(node.args, 1);
      RowScatter rows(rewriter, node, MaskOfRows(graph, rewriter.nodes(), definer, mask));
      if (rows.Fits()) {
        rows.Replace();
        continue;
      }
    }
    rewriter.Keep(node);
  }
  return rewriter.Finish();
}

}  // namespace autosp
