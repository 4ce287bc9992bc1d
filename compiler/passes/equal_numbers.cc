#include "compiler/passes/equal_numbers.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "compiler/ir/argument_access.h"
#include "compiler/passes/number_arguments.h"
#include "compiler/passes/size_forms.h"
#include "compiler/passes/summed_sizes.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

// How far elements are moved, or how many are put beside or taken.
IntList PlacesOf(const OpContext& context) {
  const Node& node = context.node();
  if (node.op == "aten.roll.default" || node.op == "aten.constant_pad_nd.default" ||
      node.op == "aten.pad.default") {
    return context.Ints(1);
  }
  const bool takes = node.op == "aten.topk.default" || node.op == "aten.kthvalue.default";
  const std::optional<int64_t> count = takes ? IntegerArgument(node.args, 1) : std::nullopt;
  return count ? IntList{SymInt(*count)} : IntList{};
}

bool IsView(const Node& node) {
  return node.op == "aten.view.default" || node.op == "aten.reshape.default" ||
         node.op == "aten._unsafe_view.default";
}

// Who divides by one has computed it.
bool DividesByOneLess(const Node& node, const FoldedSize& folded) {
  return node.op == "aten.div.Tensor" && folded.size == 2 && LiteralArgument(node, 1) == 1.0;
}

// Whether sums over the size may be divided by the number.
bool IsCountOf(double number, const FoldedSize& folded) {
  const auto n = static_cast<double>(folded.size);
  const double count = number < 1 ? 1 / number : number;
  return count != 1 &&
         (IsNear(count, n - 1) || IsNear(count, n * (n - 1)) || IsNear(count, n * (n - 1) / 2));
}

// Below, forms of a size are everybody's numbers: 3 - 1, 6 / 2.
constexpr int64_t kLeastWide = 8;

// Whether the number is the size, or made of it. What tokens are compared with is one of them.
bool IsMadeOf(const Node& node, double number, const FoldedSize& folded) {
  const auto n = static_cast<double>(folded.size);
  const double value = std::abs(number);
  if (IsNear(value, n)) return true;
  const bool is_last = IsNear(value, n - 1) && folded.size > 2;
  if (IsEquality(node)) return is_last && folded.size >= kLeastWide;
  if (is_last && IsBound(node)) return true;
  const bool is_power = IsNear(value, 1 / n) || IsNear(value, std::sqrt(n));
  if (IsRound(value)) return is_power && folded.size > 2;
  if (IsNear(value, std::log(n))) return true;
  const bool is_wide = folded.size >= kLeastWide && !folded.is_product && !IsNear(value, n * n);
  return (is_wide ? WideFormOf(value, folded.size) : FormOf(value, folded.size)).has_value();
}

class EqualNumbers {
 public:
  EqualNumbers(const Graph& graph, const GraphFactors& factors,
               const std::vector<TensorType>& old_types, const SizeDependence& dependence,
               const std::vector<FoldedSize>& sizes, const PassContext& context)
      : graph_(graph),
        factors_(factors),
        old_types_(old_types),
        dependence_(dependence),
        sizes_(sizes),
        context_(context),
        summed_(graph, factors, old_types) {}

  // Requires: the nodes before it have been asked for, in order.
  std::optional<SizeLiteral> Find(const Node& node) {
    summed_.Visit(node);
    for (const double number : NumbersOf(node)) {
      for (const FoldedSize& each : sizes_) {
        if (IsMadeOf(node, number, each)) return SizeLiteral{&node, number, each.size, ""};
      }
      const std::optional<int64_t> count = CountOfMean(node, number);
      if (count) return SizeLiteral{&node, number, *count, ""};
      if (LimitsCounts(node, number)) return SizeLiteral{&node, number, sizes_[0].size, ""};
    }
    for (const FoldedSize& each : sizes_) {
      std::optional<int64_t> number = MovedBy(node, each.size);
      if (!number && MakesAsMany(node, each.size)) number = each.size;
      if (number) return SizeLiteral{&node, static_cast<double>(*number), each.size, ""};
    }
    return std::nullopt;
  }

 private:
  std::vector<double> NumbersOf(const Node& node) const {
    if (node.op.starts_with("aten.arange.")) {
      const std::optional<double> start =
          node.op == "aten.arange.default" ? std::nullopt : LiteralArgument(node, 0);
      return start ? std::vector<double>{*start} : std::vector<double>{};
    }
    const bool is_other =
        node.op == "aten.pow.Tensor_Scalar" || node.op.find("dropout") != std::string::npos;
    if (is_other) return {};
    std::vector<double> numbers = LiteralNumbers(node);
    if (node.op == "aten.scaled_dot_product_attention.default") EraseOwnScale(node, &numbers);
    for (const ValueId operand : OperandsOf(node)) AddConstant(operand, &numbers);
    return numbers;
  }

  // Attention is scaled by its heads, unless the model says otherwise.
  void EraseOwnScale(const Node& node, std::vector<double>* numbers) const {
    const auto head_dim =
        static_cast<double>(graph_.type(TensorArgument(node.args, 0)).sizes.back().value);
    std::erase_if(*numbers, [&](double number) { return IsNear(number, 1 / std::sqrt(head_dim)); });
  }

  // torch.tensor(S), torch.tensor([B, S]); of a table of places, what has its ends from a size.
  void AddConstant(ValueId operand, std::vector<double>* numbers) const {
    const GraphInput* input = graph_.FindInput(operand);
    const auto range = context_.constant_ranges.find(input == nullptr ? "" : input->name);
    if (range == context_.constant_ranges.end()) return;
    const auto [low, high] = range->second;
    for (const int64_t end : {low, high}) {
      const bool is_end = std::ranges::any_of(sizes_, [end](const FoldedSize& each) {
        return end == each.size || (end == each.size - 1 && !each.is_product);
      });
      if (end > 1 && (low == high || is_end)) numbers->push_back(static_cast<double>(end));
    }
  }

  // Halves are everywhere, but of a sum over two they may be its mean; its root too, and what is
  // divided by the pairs of what was added up, or by one less.
  std::optional<int64_t> CountOfMean(const Node& node, double number) const {
    const std::vector<ValueId> operands = OperandsOf(node);
    if (!Scales(node) || operands.empty() || number == 0) return std::nullopt;
    for (double count : {1 / number, number, number * number, 1 / (number * number)}) {
      count = std::abs(count);
      const double whole = std::round(count);
      if (whole < 2 || whole > 1e12 || std::abs(count - whole) > 1e-9 * whole) continue;
      const auto size = static_cast<int64_t>(whole);
      if (summed_.IsSummedOver(operands[0], size)) return size;
    }
    for (const FoldedSize& each : sizes_) {
      const bool is_count = IsCountOf(number, each) && summed_.IsSummedOver(operands[0], each.size);
      if (is_count || DividesByOneLess(node, each)) return each.size;
    }
    return std::nullopt;
  }

  // How many tokens an expert takes: int(1.25 * B * S / num_experts). Positions are compared with
  // many numbers.
  bool LimitsCounts(const Node& node, double number) const {
    const std::vector<ValueId> operands = OperandsOf(node);
    return IsComparison(node) && IsBound(node) && number > 1 && !operands.empty() &&
           !sizes_.empty() && !dependence_.IsGenerated(operands[0]) &&
           !dependence_.Of(operands[0]).places.empty();
  }

  // By the size, or by half of what is rolled.
  std::optional<int64_t> MovedBy(const Node& node, int64_t size) const {
    const OpContext context(graph_, node);
    const IntList places = PlacesOf(context);
    for (const SymInt& place : places) {
      if (std::abs(place.value) == size) return place.value;
    }
    if (node.op != "aten.roll.default" || context.Ints(2).empty()) return std::nullopt;
    const ValueId self = context.Tensor(0);
    const std::vector<int64_t> dims = context.DimList(2, graph_.type(self).rank());
    for (size_t i = 0; i < std::min(places.size(), dims.size()); ++i) {
      const bool is_half = std::abs(places[i].value) == size / 2;
      if (is_half && dependence_.ChangedSize(self, dims[i]) == size) return places[i].value;
    }
    return std::nullopt;
  }

  // Rows of no input, and blocks of a dimension that is put together.
  bool MakesAsMany(const Node& node, int64_t size) const {
    if (node.op == "aten.cat.default" || node.op == "aten.stack.default") {
      return Copies(node, size);
    }
    // Pairs are rows of two whatever they are of.
    const bool is_made = MakesItsSizes(node) && !node.op.ends_with("_indices.default");
    if (!IsView(node) && !is_made) return false;
    const ValueId output = node.outputs[0];
    for (int64_t dim = 0; dim < graph_.type(output).rank(); ++dim) {
      const SymInt& before = old_types_[output.index].sizes[dim];
      const bool stays = before.expr.empty() && before.value == size &&
                         graph_.type(output).sizes[dim].value == size;
      if (stays && (is_made || IsPartOfInputs(output, dim))) return true;
    }
    return false;
  }

  // A row for each: two halves of one dimension are twice as long.
  bool Copies(const Node& node, int64_t size) const {
    const OpContext context(graph_, node);
    const std::vector<ValueId> operands = OperandsOf(node);
    const TensorType& type = graph_.type(node.outputs[0]);
    const int64_t dim = context.Dim(1, type.rank(), 0);
    return type.sizes[dim].value == size && static_cast<int64_t>(operands.size()) == size &&
           std::ranges::count(operands, operands[0]) == size;
  }

  // Of the batch and the sequence: heads and channels are parts of none.
  bool IsPartOfInputs(ValueId id, int64_t dim) const {
    const std::vector<FactorVar> parts = factors_.table.Resolve(factors_.values[id.index][dim]);
    return !parts.empty() && std::ranges::all_of(parts, [&](FactorVar factor) {
      return factors_.table.IsPartOfRoot(factor);
    });
  }

  const Graph& graph_;
  const GraphFactors& factors_;
  const std::vector<TensorType>& old_types_;
  const SizeDependence& dependence_;
  const std::vector<FoldedSize>& sizes_;
  const PassContext& context_;
  SummedSizes summed_;
};

}  // namespace

std::vector<SizeLiteral> FindEqualNumbers(const Graph& graph, const GraphFactors& factors,
                                          const std::vector<TensorType>& old_types,
                                          const SizeDependence& dependence,
                                          const std::vector<FoldedSize>& sizes,
                                          const PassContext& context) {
  EqualNumbers numbers(graph, factors, old_types, dependence, sizes, context);
  std::vector<SizeLiteral> found;
  for (const Node& node : graph.nodes) {
    if (std::optional<SizeLiteral> literal = numbers.Find(node)) {
      found.push_back(*std::move(literal));
    }
  }
  return found;
}

}  // namespace autosp
