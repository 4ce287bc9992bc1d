#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "common/status_macros.h"
#include "compiler/analysis/index_expr.h"
#include "compiler/ir/argument_access.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/passes/sorted_region.h"
#include "compiler/rules/expert_products.h"

namespace autosp {
namespace {

// Writes the nodes of regions for rows in their own order.
class Unsorter {
 public:
  explicit Unsorter(GraphRewriter& rewriter) : rewriter_(rewriter) {}

  void Apply(const Node& node, const SortedStep& step) {
    switch (step.kind) {
      case SortedStep::Kind::kKeep:
        return rewriter_.Keep(node);
      case SortedStep::Kind::kSort:
        return Sort(node, step.operand);
      case SortedStep::Kind::kProduct:
        return Product(node, step.operand);
      case SortedStep::Kind::kCopies:
        return Copies(node, step.copies);
      case SortedStep::Kind::kIs:
        return rewriter_.Replace(node.outputs.back(), rewriter_.Current(step.operand));
      case SortedStep::Kind::kSum:
        return Sum(node, step);
    }
  }

 private:
  TensorType TypeOf(ValueId id) const { return Contiguous(rewriter_.graph().type(id)); }
  std::vector<SymInt> SizesOf(ValueId id) const { return rewriter_.graph().type(id).sizes; }

  void Sort(const Node& node, ValueId rows) {
    const ValueId order = EmitRange(rewriter_, node, 0, SizesOf(rows)[0].value);
    rewriter_.Replace(node.outputs.back(), order);
    if (node.outputs.size() > 1) rewriter_.Replace(node.outputs[0], rewriter_.Current(rows));
  }

  ValueId Reshape(const Node& node, ValueId value, std::vector<SymInt> sizes) {
    return ReshapeTo(node, value, std::move(sizes), rewriter_);
  }

  // [T, ...] -> [T, copies, ...] -> [T * copies, ...]; products read what is stretched.
  void Copies(const Node& node, int64_t copies) {
    const ValueId self = rewriter_.Current(TensorArgument(node.args, 0));
    TensorType type = TypeOf(self);
    type.sizes.insert(type.sizes.begin() + 1, SymInt(1));
    const ValueId column =
        rewriter_.EmitOne(node, "aten.unsqueeze.default", {self, SymInt(1)}, Contiguous(type));
    type.sizes[1] = SymInt(copies);
    const ValueId stretched = rewriter_.EmitOne(
        node, "aten.expand.default", {column, IntList(type.sizes), false}, Contiguous(type));
    const ValueId result = Reshape(node, stretched, SizesOf(node.outputs[0]));
    stretched_[result] = stretched;
    rewriter_.Replace(node.outputs[0], result);
  }

  void Product(const Node& node, ValueId groups) {
    ValueId rows = rewriter_.Current(TensorArgument(node.args, 0));
    ValueId experts = CastTo(node, rewriter_.Current(groups), DType::kI64, rewriter_);
    TensorType type = TypeOf(node.outputs[0]);
    const std::vector<SymInt> sizes = type.sizes;
    const auto stretched = stretched_.find(rows);
    if (stretched != stretched_.end()) {
      rows = stretched->second;
      type.sizes = SizesOf(rows);
      type.sizes.back() = sizes.back();
      experts = Reshape(node, experts, {type.sizes.begin(), type.sizes.end() - 1});
    }
    ValueId result =
        rewriter_.EmitOne(node, kExpertMm, {rows, node.args[1], experts}, Contiguous(type));
    if (stretched != stretched_.end()) result = Reshape(node, result, sizes);
    rewriter_.Replace(node.outputs[0], result);
  }

  // self + the sum of each row's copies.
  void Sum(const Node& node, const SortedStep& step) {
    const TensorType type = TypeOf(node.outputs[0]);
    std::vector<SymInt> sizes = type.sizes;
    sizes.insert(sizes.begin() + 1, SymInt(step.copies));
    const ValueId apart = Reshape(node, rewriter_.Current(step.operand), std::move(sizes));
    const ValueId sum = rewriter_.EmitOne(node, "aten.sum.dim_IntList",
                                          {apart, IntList{SymInt(1)}, false, None{}}, type);
    rewriter_.Replace(node.outputs[0], rewriter_.EmitOne(node, "aten.add.Tensor",
                                                         {node.args[0], sum, SymInt(1)}, type));
  }

  GraphRewriter& rewriter_;
  std::map<ValueId, ValueId> stretched_;  // by rows: the view that they were copied from
};

}  // namespace

// Mixtures of experts sort rows by expert, multiply groups of rows, and put the rows back. Between
// the two each row is computed by itself, so their order makes no difference, and sorting is left
// to the op that multiplies: ranks then need their own rows alone.
//
//   before  %_, %p = aten.sort.default(%e, -1, false)               %e [8]: an expert for each row
//           %x = aten.index.Tensor(%t, [floor_divide(%p, 2)])       %t [4, 6]: two rows a token
//           %y = aten._grouped_mm.default(%x, %w, cumsum(histc(%e)), none, none)
//           %z = aten.index.Tensor(%y, [index_put(zeros, [%p], arange(8))])
//   after   %x = aten.expand.default(unsqueeze(%t, 1), [4, 2, 6])
//           %z = reshape(autosp.expert_mm(%x, %w, reshape(%e, [4, 2])))
//
// Requires that groups end where counts of the same numbers say, that nothing sees sorted rows but
// what works row by row or sums over all of them, and that the order is inverted where rows go
// back; else the region is left as it is.
absl::StatusOr<bool> UnsortRows(Graph& graph, const PassContext& context) {
  const auto is_product = [](const Node& node) { return node.op == kGroupedMm; };
  if (std::ranges::none_of(graph.nodes, is_product)) return false;
  SortedSteps steps;
  {
    ASSIGN_OR_RETURN(const GraphFactors factors, InferFactors(graph, context.roles));
    const std::vector<int32_t> definer = DefiningNodes(graph);
    IndexEvaluator evaluator(graph);
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      const std::optional<SortedSteps> region =
          FindSortedRegion(graph, factors, definer, evaluator, i);
      if (!region) continue;
      const auto is_taken = [&](const auto& entry) { return steps.contains(entry.first); };
      if (std::ranges::any_of(*region, is_taken)) continue;
      steps.insert(region->begin(), region->end());
    }
  }
  GraphRewriter rewriter(graph);
  Unsorter unsorter(rewriter);
  for (size_t i = 0; i < rewriter.nodes().size(); ++i) {
    const auto step = steps.find(i);
    unsorter.Apply(rewriter.nodes()[i], step == steps.end() ? SortedStep{} : step->second);
  }
  return rewriter.Finish();
}

}  // namespace autosp
