#include "compiler/passes/summed_terms.h"

#include "compiler/ir/argument_access.h"
#include "compiler/passes/graph_rewriter.h"

namespace autosp {
namespace {

bool AddsOnce(const Node& node) {
  const bool adds = node.op == "aten.add.Tensor" || node.op == "aten.sub.Tensor";
  return adds && NumberArgument(node.args, 2).value_or(1) == 1;
}

// number - x
bool IsTurned(const Node& node) {
  return node.op == "aten.rsub.Scalar" && NumberArgument(node.args, 2).value_or(1) == 1;
}

}  // namespace

bool SummedTerm::IsZero() const { return NumberArgument({value}, 0) == 0.0; }

bool IsPlainSum(const Graph& graph, const Node& node) {
  const ValueId left = TensorArgument(node.args, 0);
  const ValueId right = TensorArgument(node.args, 1);
  return AddsOnce(node) && left.valid() && right.valid() &&
         SameType(graph, left, node.outputs[0]) && SameType(graph, right, node.outputs[0]);
}

SummedTerms::SummedTerms(const Graph& graph)
    : graph_(graph), definer_(DefiningNodes(graph)), adder_(graph.values.size(), -1) {
  std::vector<int32_t> num_uses(graph.values.size(), 0);
  for (const ValueId output : graph.outputs) num_uses[output.index] = 2;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const ValueId operand : OperandsOf(graph.nodes[i])) {
      adder_[operand.index] = Adds(graph.nodes[i]) ? static_cast<int32_t>(i) : -1;
      ++num_uses[operand.index];
    }
  }
  for (size_t i = 0; i < adder_.size(); ++i) {
    if (num_uses[i] != 1) adder_[i] = -1;
  }
}

// a + b, a - b, a + 3, 3 - a, -a, of one type.
bool SummedTerms::Adds(const Node& node) const {
  if (IsPlainSum(graph_, node)) return true;
  const bool has_number = NumberArgument(node.args, 1).has_value();
  const bool is_of_number = (AddsOnce(node) || IsTurned(node)) && has_number;
  return (is_of_number || node.op == "aten.neg.default") &&
         SameType(graph_, OperandsOf(node)[0], node.outputs[0]);
}

bool SummedTerms::IsRoot(size_t node) const {
  return Adds(graph_.nodes[node]) && adder_[graph_.nodes[node].outputs[0].index] < 0;
}

std::vector<SummedTerm> SummedTerms::Of(size_t node) const {
  std::vector<SummedTerm> terms;
  Collect(graph_.nodes[node], false, &terms);
  return terms;
}

void SummedTerms::Collect(const Node& node, bool is_negative,
                          std::vector<SummedTerm>* terms) const {
  for (size_t i = 0; i < (node.op == "aten.neg.default" ? 1 : 2); ++i) {
    const bool is_subtracted = node.op == "aten.neg.default" ||
                               (i == 1 && node.op == "aten.sub.Tensor") ||
                               (i == 0 && IsTurned(node));
    const bool negative = is_negative != is_subtracted;
    const ValueId value = TensorArgument(node.args, i);
    const int32_t definer = value.valid() ? definer_[value.index] : -1;
    // A sum inside of torch.no_grad hands no gradient on.
    const bool is_inner = definer >= 0 && adder_[value.index] >= 0 && Adds(graph_.nodes[definer]) &&
                          graph_.nodes[definer].no_grad == node.no_grad;
    if (is_inner) {
      Collect(graph_.nodes[definer], negative, terms);
    } else {
      terms->push_back({node.args[i], negative});
    }
  }
}

}  // namespace autosp
