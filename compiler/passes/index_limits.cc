#include "compiler/passes/index_limits.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>
#include <string_view>

#include "compiler/ir/argument_access.h"
#include "compiler/passes/number_arguments.h"
#include "compiler/passes/size_dependence.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

constexpr int64_t kMost = int64_t{1} << 40;  // no dimension is larger, and nothing overflows

// None where the archive computes it.
std::optional<int64_t> WholeLiteral(const Node& node, size_t arg) {
  if (const auto* number = ArgumentAs<SymInt>(node.args, arg)) {
    return number->expr.empty() ? std::optional(number->value) : std::nullopt;
  }
  const auto* number = ArgumentAs<double>(node.args, arg);
  const bool is_whole =
      number != nullptr && std::abs(*number) < kMost && *number == std::floor(*number);
  return is_whole ? std::optional(static_cast<int64_t>(*number)) : std::nullopt;
}

// The number that all elements of a result are.
std::optional<int64_t> FillOf(const Node& node) {
  if (const std::optional<size_t> arg = FillArgument(node)) return WholeLiteral(node, *arg);
  const bool is_zero = node.op.starts_with("aten.zeros") || node.op == "aten.new_zeros.default";
  return is_zero ? std::optional<int64_t>(0) : std::nullopt;
}

std::optional<IndexLimit> Least(std::optional<IndexLimit> a, std::optional<IndexLimit> b) {
  if (!a || !b) return a ? a : b;
  return a->greatest <= b->greatest ? a : b;
}

}  // namespace

std::vector<LookUp> LookUpsOf(const Graph& graph, const Node& node) {
  static const auto& along_dim = *new std::set<std::string_view>{
      "aten.gather.default",        "aten.index_add.default",     "aten.index_copy.default",
      "aten.index_fill.int_Scalar", "aten.index_fill.int_Tensor", "aten.index_select.default"};
  const OpContext context(graph, node);
  const ValueId self = context.Tensor(0);
  if (node.op == "aten.one_hot.default") {
    const ValueId result = node.outputs[0];
    return {{.table = result, .dim = graph.type(result).rank() - 1, .index = self}};
  }
  if (node.op == "aten.embedding.default") {
    return {{.table = self, .dim = 0, .index = context.Tensor(1)}};
  }
  if (node.op == "aten.index.Tensor" || node.op == "aten.index_put.default") {
    std::vector<LookUp> found;
    const std::vector<ValueId> slots = context.Tensors(1);
    for (size_t i = 0; i < slots.size(); ++i) {
      if (!slots[i].valid()) continue;
      found.push_back({.table = self, .dim = static_cast<int64_t>(i), .index = slots[i]});
    }
    return found;
  }
  const bool is_along_dim = along_dim.contains(node.op) || node.op.starts_with("aten.scatter");
  const ValueId index = context.Tensor(2);
  if (!is_along_dim || !index.valid() || graph.type(self).rank() == 0) return {};
  return {{.table = self, .dim = context.Dim(1, graph.type(self).rank()), .index = index}};
}

IndexLimits::IndexLimits(const Graph& graph, const PassContext& context) : graph_(graph) {
  for (const GraphInput& input : graph.inputs) {
    const auto range = context.constant_ranges.find(input.name);
    if (range == context.constant_ranges.end()) continue;
    const auto [low, high] = range->second;
    if (low == high) constants_[input.value] = low;
  }
}

std::optional<IndexLimit> IndexLimits::Of(ValueId id) const {
  const auto known = limits_.find(id);
  return known == limits_.end() ? std::nullopt : std::optional(known->second);
}

void IndexLimits::Visit(const Node& node) {
  if (node.outputs.size() != 1) return;
  const ValueId output = node.outputs[0];
  if (const std::optional<int64_t> fill = FillOf(node)) constants_[output] = *fill;
  if (const std::optional<Bound> bound = BoundOf(node)) bounds_[output] = *bound;
  if (const std::optional<IndexLimit> drawn = Drawn(node)) drawn_[output] = *drawn;
  if (IsFloating(graph_.type(output).dtype)) return;
  if (MovesElements(node)) {
    const ValueId self = TensorArgument(node.args, 0);
    const auto known = constants_.find(self);
    if (known != constants_.end()) constants_[output] = known->second;
  }
  const std::optional<IndexLimit> limit = Find(node);
  if (limit && limit->greatest > 0 && limit->greatest < kMost) limits_[output] = *limit;
}

// Also where a tensor has it: ids % torch.tensor(4).
std::optional<int64_t> IndexLimits::NumberAt(const Node& node, size_t arg) const {
  const auto known = constants_.find(TensorArgument(node.args, arg));
  return known != constants_.end() ? std::optional(known->second) : WholeLiteral(node, arg);
}

std::optional<IndexLimit> IndexLimits::Find(const Node& node) const {
  if (node.op.starts_with("aten.where.") || node.op.starts_with("aten.masked_fill.")) {
    return Chosen(node);
  }
  const ValueId self = TensorArgument(node.args, 0);
  if (MovesElements(node)) {
    const auto drawn = drawn_.find(self);
    return drawn != drawn_.end() ? IndexLimit{drawn->second.greatest - 1, drawn->second.node}
                                 : Of(self);
  }
  if (std::optional<IndexLimit> cut = Cut(node)) return cut;
  return Shifted(node);
}

// What is cut off, wrapped around or masked by bits.
std::optional<IndexLimit> IndexLimits::Cut(const Node& node) const {
  const ValueId self = TensorArgument(node.args, 0);
  const std::optional<int64_t> number = NumberAt(node, 1);
  const auto limit = [&](std::optional<int64_t> greatest) {
    return greatest ? std::optional(IndexLimit{*greatest, &node}) : std::nullopt;
  };
  if (node.op.starts_with("aten.remainder.") || node.op.starts_with("aten.fmod.")) {
    return number && *number > 0 ? Least(Of(self), IndexLimit{*number - 1, &node}) : std::nullopt;
  }
  if (node.op.starts_with("aten.clamp.")) return Least(Of(self), limit(NumberAt(node, 2)));
  if (node.op.starts_with("aten.clamp_max.")) return Least(Of(self), limit(number));
  if (node.op.starts_with("aten.clamp_min.")) return Of(self);
  if (node.op == "aten.minimum.default") {
    const ValueId other = TensorArgument(node.args, 1);
    return Least(Least(Of(self), Of(other)), Least(limit(NumberAt(node, 0)), limit(number)));
  }
  if (node.op == "aten.bitwise_and.Tensor" || node.op == "aten.__and__.Tensor") {
    return number && *number >= 0 ? limit(number) : std::nullopt;
  }
  return std::nullopt;
}

// Of arithmetic with a number that leaves the order of the elements.
std::optional<IndexLimit> IndexLimits::Shifted(const Node& node) const {
  const std::optional<IndexLimit> of = Of(TensorArgument(node.args, 0));
  const std::optional<int64_t> number = NumberAt(node, 1);
  if (!of || !number || std::abs(*number) > kMost) return std::nullopt;
  const bool has_alpha = IntegerArgument(node.args, 2).value_or(1) != 1;
  if (node.op == "aten.add.Tensor" && !has_alpha)
    return IndexLimit{of->greatest + *number, of->node};
  if (node.op == "aten.sub.Tensor" && !has_alpha)
    return IndexLimit{of->greatest - *number, of->node};
  if (*number <= 0) return std::nullopt;
  if (Floors(node)) return IndexLimit{of->greatest / *number, of->node};
  const bool fits = of->greatest <= kMost / *number;
  if (node.op == "aten.mul.Tensor" && fits) return IndexLimit{of->greatest * *number, of->node};
  return std::nullopt;
}

std::optional<IndexLimits::Bound> IndexLimits::BoundOf(const Node& node) const {
  const ValueId self = TensorArgument(node.args, 0);
  const std::optional<int64_t> number = NumberAt(node, 1);
  if (!self.valid() || !number) return std::nullopt;
  if (node.op.starts_with("aten.lt.")) return Bound{self, *number - 1, true};
  if (node.op.starts_with("aten.le.")) return Bound{self, *number, true};
  if (node.op.starts_with("aten.ge.")) return Bound{self, *number - 1, false};
  if (node.op.starts_with("aten.gt.")) return Bound{self, *number, false};
  return std::nullopt;
}

// where(condition, a, b), masked_fill(b, condition, a): as far as both go.
std::optional<IndexLimit> IndexLimits::Chosen(const Node& node) const {
  const bool fills = node.op.starts_with("aten.masked_fill.");
  const ValueId condition = TensorArgument(node.args, fills ? 1 : 0);
  const std::optional<IndexLimit> yes = Branch(node, fills ? 2 : 1, condition, /*where=*/true);
  const std::optional<IndexLimit> no = Branch(node, fills ? 0 : 2, condition, /*where=*/false);
  if (!yes || !no) return std::nullopt;
  const IndexLimit greater = yes->greatest >= no->greatest ? *yes : *no;
  return greater.node == nullptr ? std::nullopt : std::optional(greater);
}

std::optional<IndexLimit> IndexLimits::Branch(const Node& node, size_t arg, ValueId condition,
                                              bool where) const {
  const std::optional<int64_t> number = NumberAt(node, arg);
  if (number) return IndexLimit{*number, nullptr};
  const ValueId value = TensorArgument(node.args, arg);
  const std::optional<IndexLimit> own = Of(value);
  const auto bound = bounds_.find(condition);
  if (bound == bounds_.end() || bound->second.where != where || bound->second.value != value) {
    return own;
  }
  return Least(own, IndexLimit{bound->second.greatest, &node});
}

// Random integers, as they are drawn: the whole part of a number below 1 that was multiplied.
std::optional<IndexLimit> IndexLimits::Drawn(const Node& node) const {
  if (!IsFloating(graph_.type(node.outputs[0]).dtype)) return std::nullopt;
  if (node.op == "autosp.uniform" || node.op == "aten.sigmoid.default") return IndexLimit{1, &node};
  const auto known = drawn_.find(TensorArgument(node.args, 0));
  if (known == drawn_.end()) return std::nullopt;
  if (MovesElements(node) || node.op == "aten.floor.default") return known->second;
  const std::optional<int64_t> number = NumberAt(node, 1);
  const bool scales = node.op == "aten.mul.Tensor" && number && *number > 0 && *number < kMost &&
                      known->second.greatest == 1;
  return scales ? std::optional(IndexLimit{*number, &node}) : std::nullopt;
}

}  // namespace autosp
