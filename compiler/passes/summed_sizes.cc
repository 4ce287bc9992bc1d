#include "compiler/passes/summed_sizes.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "compiler/ir/argument_access.h"
#include "compiler/ir/fourier.h"
#include "compiler/passes/mean_as_sum.h"
#include "compiler/passes/size_dependence.h"

namespace autosp {
namespace {

// Models that add up sums again and again have no end of products, and none is divided by those.
constexpr size_t kMostCounts = 256;
constexpr int64_t kMostElements = int64_t{1} << 40;

// Where a loss says whether it is a sum (2); nullopt: it is no loss.
std::optional<size_t> ReductionArgument(std::string_view op) {
  if (op == "aten.cross_entropy_loss.default" || op == "aten.nll_loss.default" ||
      op == "aten.nll_loss_nd.default" || op == "aten.binary_cross_entropy.default") {
    return 3;
  }
  if (op == "aten.binary_cross_entropy_with_logits.default") return 4;
  const bool is_of_elements = op == "aten.mse_loss.default" || op == "aten.l1_loss.default" ||
                              op == "aten.smooth_l1_loss.default" ||
                              op == "aten.huber_loss.default" || op == "aten.kl_div.default";
  return is_of_elements ? std::optional<size_t>(2) : std::nullopt;
}

bool IsSumOfLosses(const Node& node) {
  constexpr int64_t kSum = 2;
  const std::optional<size_t> argument = ReductionArgument(node.op);
  return argument && IntegerArgument(node.args, *argument) == kSum;
}

// Products of vectors to one number.
bool IsDot(const Graph& graph, const Node& node) {
  const bool is_product = node.op == "aten.dot.default" || node.op == "aten.matmul.default" ||
                          node.op == "aten.einsum.default";
  return is_product && graph.type(node.outputs[0]).rank() == 0;
}

// Operands whose sums are sums in the result, of as many elements.
std::vector<ValueId> SumsKept(const Node& node) {
  const std::vector<ValueId> operands = OperandsOf(node);
  if (node.op == "aten.add.Tensor" || node.op == "aten.sub.Tensor") return operands;
  const bool scales = node.op == "aten.mul.Tensor" || node.op == "aten.div.Tensor";
  const bool is_by_number = scales && NumberArgument(node.args, 1).has_value();
  const bool keeps = is_by_number || IsSum(node) || MovesElements(node) ||
                     node.op == "aten.neg.default" || node.op == "aten.rsub.Scalar" ||
                     IsFourier(node.op);
  if (!keeps || operands.empty()) return {};
  return {operands[0]};
}

}  // namespace

SummedSizes::SummedSizes(const Graph& graph, const GraphFactors& factors,
                         const std::vector<TensorType>& old_types)
    : graph_(graph), factors_(factors), old_types_(old_types) {
  for (const FactorVar root : {factors.batch, factors.seq}) {
    for (const GraphInput& input : graph.inputs) {
      const FactorDims& dims = factors.values[input.value.index];
      const auto dim = std::ranges::find(dims, FactorDim{root}) - dims.begin();
      if (root < 0 || dim == static_cast<int64_t>(dims.size())) continue;
      const SymInt& size = old_types[input.value.index].sizes[dim];
      const bool changes = graph.type(input.value).sizes[dim].value != size.value;
      if (size.expr.empty()) roots_.push_back({root, size.value, changes});
      break;
    }
  }
}

void SummedSizes::Visit(const Node& node) {
  Counts counts = SummedBy(node);
  const Counts own = counts;
  for (const ValueId operand : SumsKept(node)) {
    for (const auto& [count, changes] : Of(operand)) {
      counts.emplace(count, changes);
      for (const auto& [size, size_changes] : own) {
        if (counts.size() >= kMostCounts || count > kMostElements / size) break;
        counts.emplace(count * size, changes || size_changes);
      }
    }
  }
  if (counts.empty()) return;
  for (const ValueId output : node.outputs) counts_[output] = counts;
}

bool SummedSizes::IsSummedOver(ValueId value, int64_t size) const {
  return Of(value).contains({size, true});
}

SummedSizes::Counts SummedSizes::Of(ValueId value) const {
  const auto known = counts_.find(value);
  return known == counts_.end() ? Counts{} : known->second;
}

// The batch of a dimension that is batch x length.
void SummedSizes::AddRoots(ValueId value, int64_t dim, Counts* counts) const {
  const FactorDims& dims = factors_.values[value.index];
  if (dims.size() != old_types_[value.index].sizes.size()) return;  // of a node that is gone
  const FactorDim parts = factors_.table.Resolve(dims[dim]);
  if (parts.size() < 2) return;
  for (const Root& root : roots_) {
    if (root.size > 1 && std::ranges::count(parts, root.factor) > 0) {
      counts->emplace(root.size, root.changes);
    }
  }
}

// Of a size that is an expression, the number in the graph would be one too.
SummedSizes::Counts SummedSizes::OverDims(ValueId value, const std::vector<int64_t>& dims) const {
  Counts counts;
  for (const int64_t dim : dims) {
    const SymInt& size = old_types_[value.index].sizes[dim];
    if (!size.expr.empty() || size.value <= 0) continue;
    const bool size_changes = graph_.type(value).sizes[dim].value != size.value;
    Counts products = {{size.value, size_changes}};
    AddRoots(value, dim, &products);
    for (const auto& [count, changes] : counts) {
      if (count > kMostElements / size.value) continue;
      products.emplace(count * size.value, changes || size_changes);
    }
    counts.merge(products);
  }
  return counts;
}

SummedSizes::Counts SummedSizes::SummedBy(const Node& node) const {
  if (IsFourier(node.op)) {
    // A frequency is a sum over places, and a place one over frequencies, as many as places.
    const ValueId signal = node.op == kFftC2r ? node.outputs[0] : OperandsOf(node)[0];
    return OverDims(signal, {IntegerArgument(node.args, kFftDim).value_or(0)});
  }
  if (node.op == "aten.index_add.default" || node.op == "aten.scatter_add.default") {
    const ValueId rows = TensorArgument(node.args, 3);
    const int64_t dim = IntegerArgument(node.args, 1).value_or(0);
    const int64_t rank = graph_.type(rows).rank();
    return rank > 0 ? OverDims(rows, {dim < 0 ? dim + rank : dim}) : Counts{};
  }
  const bool is_dot = IsDot(graph_, node);
  const bool is_loss = IsSumOfLosses(node);
  if (!is_dot && !is_loss && !IsSum(node)) return {};
  const bool has_targets = is_loss && (node.op.starts_with("aten.cross_entropy_loss.") ||
                                       node.op.starts_with("aten.nll_loss"));
  // Classes are not added up: as many losses as there are targets are.
  const std::vector<ValueId> operands = OperandsOf(node);
  const ValueId self = operands[has_targets ? 1 : 0];
  return OverDims(self, ReducedDims(node, graph_.type(self).rank()));
}

}  // namespace autosp
