#include "compiler/passes/size_dependence.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "compiler/ir/argument_access.h"
#include "compiler/passes/number_arguments.h"
#include "compiler/rules/einsum_letters.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

bool IsOneOf(const std::set<std::string_view>& ops, const Node& node) {
  return ops.contains(node.op);
}

// Which argument is the dimension that places are named of, and which result names them.
struct PlaceOp {
  size_t dim_arg = 1;
  size_t output = 0;
};
std::optional<PlaceOp> PlaceOpOf(const Node& node) {
  if (node.op == "aten.argmax.default" || node.op == "aten.argmin.default" ||
      node.op == "aten.argsort.default") {
    return PlaceOp{.dim_arg = 1, .output = 0};
  }
  if (node.op == "aten.max.dim" || node.op == "aten.min.dim" || node.op == "aten.sort.default" ||
      node.op == "aten.cummax.default" || node.op == "aten.cummin.default" ||
      node.op == "aten.median.dim" || node.op == "aten.mode.default") {
    return PlaceOp{.dim_arg = 1, .output = 1};
  }
  if (node.op == "aten.topk.default" || node.op == "aten.sort.stable") {
    return PlaceOp{.dim_arg = 2, .output = 1};
  }
  return std::nullopt;
}

bool IsSum(const Node& node) {
  return node.op == "aten.sum.default" || node.op == "aten.sum.dim_IntList" ||
         node.op == "aten.cumsum.default" || node.op == "aten.bincount.default" ||
         node.op == "aten.histc.default" || node.op == "aten.count_nonzero.default";
}

// The letters of an operand of an einsum, or of its result where `operand` is after the last.
std::string_view LettersOf(std::string_view equation, size_t operand) {
  const size_t arrow = equation.find("->");
  if (arrow == std::string_view::npos) return {};
  std::string_view left = equation.substr(0, arrow);
  for (; operand > 0; --operand) {
    const size_t comma = left.find(',');
    if (comma == std::string_view::npos) return equation.substr(arrow + 2);
    left.remove_prefix(comma + 1);
  }
  return left.substr(0, left.find(','));
}

bool IsProduct(const Node& node) {
  return node.op == "aten.matmul.default" || node.op == "aten.mm.default" ||
         node.op == "aten.bmm.default";
}

std::vector<int64_t> AllDims(int64_t rank) {
  std::vector<int64_t> dims;
  for (int64_t dim = 0; dim < rank; ++dim) dims.push_back(dim);
  return dims;
}

}  // namespace

bool MovesElements(const Node& node) {
  static const auto& ops = *new std::set<std::string_view>{"aten._to_copy.default",
                                                           "aten._unsafe_view.default",
                                                           "aten.alias.default",
                                                           "aten.clone.default",
                                                           "aten.contiguous.default",
                                                           "aten.detach.default",
                                                           "aten.expand.default",
                                                           "aten.expand_as.default",
                                                           "aten.flatten.using_ints",
                                                           "aten.flip.default",
                                                           "aten.gather.default",
                                                           "aten.index.Tensor",
                                                           "aten.index_select.default",
                                                           "aten.lift_fresh_copy.default",
                                                           "aten.permute.default",
                                                           "aten.repeat.default",
                                                           "aten.reshape.default",
                                                           "aten.roll.default",
                                                           "aten.select.int",
                                                           "aten.slice.Tensor",
                                                           "aten.squeeze.default",
                                                           "aten.squeeze.dim",
                                                           "aten.squeeze.dims",
                                                           "aten.t.default",
                                                           "aten.tile.default",
                                                           "aten.to.device",
                                                           "aten.to.dtype",
                                                           "aten.to.dtype_layout",
                                                           "aten.to.other",
                                                           "aten.transpose.int",
                                                           "aten.tril.default",
                                                           "aten.triu.default",
                                                           "aten.type_as.default",
                                                           "aten.unflatten.int",
                                                           "aten.unsqueeze.default",
                                                           "aten.view.default"};
  return IsOneOf(ops, node);
}

bool KeepsElements(const Node& node) {
  static const auto& some = *new std::set<std::string_view>{
      "aten.gather.default", "aten.index.Tensor", "aten.index_select.default", "aten.select.int",
      "aten.slice.Tensor",   "aten.tril.default", "aten.triu.default"};
  return MovesElements(node) && !some.contains(node.op);
}

bool GrowsWithOperands(const Node& node) {
  static const auto& ops = *new std::set<std::string_view>{
      "aten.abs.default",        "aten.add.Tensor",       "aten.amax.default",
      "aten.amin.default",       "aten.cat.default",      "aten.ceil.default",
      "aten.clamp.Tensor",       "aten.clamp.default",    "aten.clamp_max.Tensor",
      "aten.clamp_max.default",  "aten.clamp_min.Tensor", "aten.clamp_min.default",
      "aten.cumsum.default",     "aten.diff.default",     "aten.div.Tensor",
      "aten.div.Tensor_mode",    "aten.floor.default",    "aten.floor_divide.default",
      "aten.fmod.Scalar",        "aten.fmod.Tensor",      "aten.log.default",
      "aten.log1p.default",      "aten.log2.default",     "aten.masked_fill.Scalar",
      "aten.masked_fill.Tensor", "aten.max.default",      "aten.max.dim",
      "aten.maximum.default",    "aten.mean.default",     "aten.mean.dim",
      "aten.min.default",        "aten.min.dim",          "aten.minimum.default",
      "aten.mul.Tensor",         "aten.neg.default",      "aten.pow.Tensor_Scalar",
      "aten.reciprocal.default", "aten.remainder.Scalar", "aten.remainder.Tensor",
      "aten.round.default",      "aten.rsqrt.default",    "aten.rsub.Scalar",
      "aten.rsub.Tensor",        "aten.sqrt.default",     "aten.square.default",
      "aten.stack.default",      "aten.sub.Tensor",       "aten.sum.default",
      "aten.sum.dim_IntList",    "aten.trunc.default",    "aten.where.ScalarOther",
      "aten.where.ScalarSelf",   "aten.where.self"};
  // Without a rule: distances and pairs of places.
  static const auto& opaque_ops = *new std::set<std::string_view>{"aten.cdist.default",
                                                                  "aten.dist.default",
                                                                  "aten.ger.default",
                                                                  "aten.median.default",
                                                                  "aten.median.dim",
                                                                  "aten.meshgrid.default",
                                                                  "aten.norm.Scalar",
                                                                  "aten.norm.ScalarOpt_dim",
                                                                  "aten.meshgrid.indexing",
                                                                  "aten.outer.default",
                                                                  "aten.pairwise_distance.default"};
  return IsOneOf(ops, node) || IsOneOf(opaque_ops, node);
}

void Dependence::Add(const Dependence& other) {
  places.insert(other.places.begin(), other.places.end());
  sums.insert(other.sums.begin(), other.sums.end());
}

SizeDependence::SizeDependence(const Graph& graph, const std::vector<TensorType>& old_types)
    : graph_(graph),
      old_types_(old_types),
      values_(graph.values.size()),
      is_generated_(graph.values.size(), false),
      is_count_(graph.values.size(), false) {
  for (size_t i = 0; i < graph.values.size(); ++i) {
    is_count_[i] = !IsFloating(graph.values[i].type.dtype);
  }
  for (const Node& node : graph.nodes) Visit(node);
}

std::optional<int64_t> SizeDependence::ChangedSize(ValueId id, int64_t dim) const {
  const std::vector<SymInt>& old_sizes = old_types_[id.index].sizes;
  const std::vector<SymInt>& sizes = graph_.type(id).sizes;
  if (dim < 0 || dim >= static_cast<int64_t>(std::min(old_sizes.size(), sizes.size()))) {
    return std::nullopt;
  }
  const SymInt& old_size = old_sizes[dim];
  if (!old_size.expr.empty() || old_size.value == sizes[dim].value) return std::nullopt;
  return old_size.value;
}

Dependence SizeDependence::OfOperands(const Node& node) const {
  Dependence found;
  for (const ValueId operand : OperandsOf(node)) found.Add(Of(operand));
  return found;
}

// Sizes of those dimensions, and what they multiply to.
std::set<int64_t> SizeDependence::ChangedSizes(ValueId id, std::vector<int64_t> dims) const {
  std::set<int64_t> sizes;
  int64_t product = 1;
  for (const int64_t dim : dims) {
    if (const std::optional<int64_t> size = ChangedSize(id, dim)) {
      sizes.insert(*size);
      sizes.insert(product *= *size);
    }
  }
  return sizes;
}

Dependence SizeDependence::SummedOver(const Node& node) const {
  const OpContext context(graph_, node);
  const ValueId self = context.Tensor(0);
  const int64_t rank = graph_.type(self).rank();
  std::vector<int64_t> dims = AllDims(rank);
  if (node.op == "aten.sum.dim_IntList") dims = context.DimList(1, rank);
  if (node.op == "aten.cumsum.default") dims = {context.Dim(1, rank)};
  Dependence found;
  std::set<int64_t> sizes = ChangedSizes(self, dims);
  // Ones that are added up count as well.
  const bool is_count =
      is_count_[self.index] || IsGenerated(self) || !IsFloating(graph_.type(node.outputs[0]).dtype);
  (is_count ? found.places : found.sums) = std::move(sizes);
  return found;
}

// What a result depends on that no operand does.
Dependence SizeDependence::Created(const Node& node, size_t output) const {
  Dependence found;
  if (node.op.starts_with("aten.arange.") || node.op == "aten.linspace.default") {
    found.places = ChangedSizes(node.outputs[0], {0});
  } else if (const std::optional<PlaceOp> op = PlaceOpOf(node); op && op->output == output) {
    const OpContext context(graph_, node);
    const ValueId self = context.Tensor(0);
    const int64_t rank = graph_.type(self).rank();
    const bool is_of_all = node.op.starts_with("aten.arg") && !context.Has(op->dim_arg);
    found.places = ChangedSizes(
        self, is_of_all ? AllDims(rank) : std::vector{context.Dim(op->dim_arg, rank, rank - 1)});
  } else if (IsSum(node)) {
    found = SummedOver(node);
  } else if (IsProduct(node)) {
    const ValueId left = TensorArgument(node.args, 0);
    found.sums = ChangedSizes(left, {graph_.type(left).rank() - 1});
  } else if (node.op == "aten.einsum.default") {
    found.sums = Contracted(node);
  }
  return found;
}

// What an einsum sums over: letters that its result does not have.
std::set<int64_t> SizeDependence::Contracted(const Node& node) const {
  const std::optional<std::string> equation = SpelledEquation(OpContext(graph_, node));
  if (!equation) return {};
  const std::vector<ValueId> operands = OperandsOf(node);
  const std::string_view kept = LettersOf(*equation, operands.size());
  std::set<int64_t> sizes;
  for (size_t i = 0; i < operands.size(); ++i) {
    const std::string_view letters = LettersOf(*equation, i);
    for (size_t dim = 0; dim < letters.size(); ++dim) {
      if (kept.find(letters[dim]) != std::string_view::npos) continue;
      if (const auto size = ChangedSize(operands[i], static_cast<int64_t>(dim))) {
        sizes.insert(*size);
      }
    }
  }
  return sizes;
}

// A product with data is data, whatever the other factor counts.
bool SizeDependence::KeepsDependence(const Node& node) const {
  if (MovesElements(node)) return true;
  if (!GrowsWithOperands(node)) return false;
  if (node.op != "aten.mul.Tensor" && node.op != "aten.div.Tensor") return true;
  return std::ranges::all_of(
      OperandsOf(node), [&](ValueId id) { return is_count_[id.index] || !Of(id).places.empty(); });
}

void SizeDependence::Visit(const Node& node) {
  const std::vector<ValueId> operands = OperandsOf(node);
  const bool is_generated = MakesItsSizes(node) || std::ranges::all_of(operands, [&](ValueId id) {
                              return IsGenerated(id);
                            });
  Dependence kept;
  // Where a value is looked up or chosen, the places that say which are not in the result.
  const bool is_first = MovesElements(node) || node.op.starts_with("aten.masked_fill");
  const size_t skipped = node.op.starts_with("aten.where") ? 1 : 0;
  for (size_t i = skipped; i < (is_first ? std::min<size_t>(1, operands.size()) : operands.size());
       ++i) {
    kept.Add(Of(operands[i]));
  }
  if (!MovesElements(node) && !GrowsWithOperands(node)) kept = {};
  if (!KeepsDependence(node)) kept.places.clear();
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    const ValueId output = node.outputs[i];
    is_generated_[output.index] = is_generated;
    if (graph_.type(output).dtype == DType::kBool) continue;
    values_[output.index] = kept;
    values_[output.index].Add(Created(node, i));
    const bool is_cast = MovesElements(node) || GrowsWithOperands(node);
    if (is_cast && !operands.empty()) {
      is_count_[output.index] =
          is_count_[output.index] ||
          std::ranges::all_of(operands, [&](ValueId id) { return is_count_[id.index]; });
    }
  }
}

}  // namespace autosp
