#include "compiler/passes/size_rewriter.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/rules/op_context.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

absl::Status Unexplained() {
  return InvalidArgument(
      "its sizes depend on the batch or sequence in a way that is not known; train with the "
      "exported sizes, or export with dynamic shapes");
}

}  // namespace

bool SetSizes(Graph& graph, const GraphFactors& factors) {
  bool changed = false;
  for (size_t i = 0; i < graph.values.size(); ++i) {
    TensorType& type = graph.values[i].type;
    // Values of nodes that were rewritten away have no factors.
    if (factors.values[i].size() != type.sizes.size()) continue;
    const std::vector<int64_t> before = Values(type.sizes);
    for (size_t d = 0; d < type.sizes.size(); ++d) {
      type.sizes[d] = SymInt(factors.table.Size(factors.values[i][d]));
    }
    if (Values(type.sizes) == before) continue;
    // Strides of intermediate values are found again by the lowering.
    type.strides = ContiguousStrides(Values(type.sizes));
    changed = true;
  }
  return changed;
}

std::vector<int64_t> SizeRewriter::NewSizes(ValueId id) const {
  return Values(graph_.type(id).sizes);
}
std::vector<int64_t> SizeRewriter::OldSizes(ValueId id) const {
  return Values(old_types_[id.index].sizes);
}
bool SizeRewriter::Changed(ValueId id, int64_t dim) const {
  return NewSizes(id)[dim] != OldSizes(id)[dim];
}

absl::Status SizeRewriter::Rewrite(Node& node) {
  if (node.op == "aten.slice.Tensor") return RewriteSlice(node);
  if (node.op == "aten.select.int") return RewriteSelect(node);
  if (node.op == "aten.slice_scatter.default" || node.op == "aten.select_scatter.default") {
    RETURN_IF_ERROR(CheckWritten(node));
  }
  bool any_changed = false;
  for (ValueId output : node.outputs) any_changed = any_changed || Changed(output);
  if (!any_changed) return CheckExplained(node);
  if (const std::optional<size_t> sizes = SizeArgument(node.op)) {
    SetSizes(node, *sizes);
    return absl::OkStatus();
  }
  if (node.op == "aten.arange.default") {
    node.args[0] = SymInt(NewSizes(node.outputs[0])[0]);
    return absl::OkStatus();
  }
  if (node.op == "aten.eye.default" || node.op == "aten.eye.m") return RewriteEye(node);
  if (node.op == "aten.arange.start") {
    const OpContext context(graph_, node, factors_.table, factors_.values);
    if (!context.Int(0)) return CheckExplained(node);
    node.args[1] = SymInt(*context.Int(0) + NewSizes(node.outputs[0])[0]);
    return absl::OkStatus();
  }
  if (node.op == "aten.one_hot.default") {
    node.args[1] = SymInt(NewSizes(node.outputs[0]).back());
    return absl::OkStatus();
  }
  if (node.op == "aten.unflatten.int") return RewriteUnflatten(node);
  if (node.op == "aten.repeat.default" || node.op == "aten.tile.default") {
    return RewriteRepeat(node);
  }
  return CheckExplained(node);
}

absl::Status SizeRewriter::RewriteUnflatten(Node& node) {
  const OpContext context(graph_, node, factors_.table, factors_.values);
  const ValueId self = context.Tensor(0);
  const int64_t dim = context.Dim(1, context.Rank(self));
  const std::vector<int64_t> sizes = NewSizes(node.outputs[0]);
  const size_t count = sizes.size() - static_cast<size_t>(context.Rank(self)) + 1;
  node.args[2] = IntList(sizes.begin() + dim, sizes.begin() + dim + static_cast<int64_t>(count));
  return absl::OkStatus();
}

// eye(rows), eye(rows, columns)
absl::Status SizeRewriter::RewriteEye(Node& node) {
  const std::vector<int64_t> sizes = NewSizes(node.outputs[0]);
  node.args[0] = SymInt(sizes[0]);
  if (node.op == "aten.eye.m") {
    node.args[1] = SymInt(sizes[1]);
  } else if (sizes[0] != sizes[1]) {
    return Unexplained();
  }
  return absl::OkStatus();
}

// How often, from what there is and what there must be.
absl::Status SizeRewriter::RewriteRepeat(Node& node) {
  const std::vector<int64_t> from = NewSizes(std::get<ValueId>(node.args[0]));
  IntList repeats;
  const std::vector<int64_t> to = NewSizes(node.outputs[0]);
  for (size_t i = 0; i < to.size(); ++i) {
    const size_t added = to.size() - from.size();
    const int64_t size = i < added ? 1 : from[i - added];
    if (size == 0 || to[i] % size != 0) return Unexplained();
    repeats.emplace_back(to[i] / size);
  }
  node.args[1] = std::move(repeats);
  return absl::OkStatus();
}

absl::Status SizeRewriter::RewriteSelect(const Node& node) {
  const OpContext context(graph_, node, factors_.table, factors_.values);
  const ValueId self = context.Tensor(0);
  return CheckPlaces(node, self, context.Dim(1, context.Rank(self)));
}

// slice(self, dim, start, end, step): an end past the dimension, or counted from its end, stays
// right by itself; a literal end inside it must be what the factor of the result says.
absl::Status SizeRewriter::RewriteSlice(Node& node) {
  const OpContext context(graph_, node, factors_.table, factors_.values);
  const ValueId self = context.Tensor(0);
  const int64_t dim = context.Dim(1, context.Rank(self));
  const int64_t size = NewSizes(self)[dim];
  const int64_t wanted = NewSizes(node.outputs[0])[dim];
  const int64_t step = context.Int(4).value_or(1);
  RETURN_IF_ERROR(CheckStart(node, self, dim));
  int64_t start = context.Int(2).value_or(0);
  if (start < 0) start += size;
  if (start + (wanted - 1) * step >= size) {
    return InvalidArgument(
        "takes ", wanted, " of a dimension of ", size, "; the model is made for at most ", size,
        " there: choose a training.seq_len that fits, or a model with a larger table");
  }
  const int64_t stated_end = context.Int(3).value_or(std::numeric_limits<int64_t>::max());
  const int64_t end = std::min(stated_end < 0 ? stated_end + size : stated_end, size);
  const int64_t got = (end - start + step - 1) / step;
  if (got == wanted) return CheckPlaces(node, self, dim);
  // An end that moves with the dimension says itself how many it takes.
  const int64_t old_size = OldSizes(self)[dim];
  if (stated_end < 0 || stated_end >= old_size) return Unexplained();
  RETURN_IF_ERROR(CheckEnd(node, self, dim, start + wanted * step));
  node.args[3] = SymInt(start + wanted * step);
  return absl::OkStatus();
}

// What is left of tokens that were put beside others and are cut off again.
bool SizeRewriter::IsRoot(ValueId id, int64_t dim) const {
  const std::vector<FactorVar> parts = factors_.table.Resolve(factors_.values[id.index][dim]);
  return !parts.empty() && std::ranges::all_of(parts, [this](FactorVar factor) {
    return factors_.table.IsPartOfRoot(factor);
  });
}

bool SizeRewriter::IsConstantThatChanged(ValueId id, int64_t dim) const {
  return Changed(id, dim) && old_types_[id.index].sizes[dim].expr.empty();
}

// A few tokens at the front are counted from there at any length. A start further in may be the
// half, or counted from the end: x[:, S // 2:] and x[:, 24:] are one node.
absl::Status SizeRewriter::CheckStart(const Node& node, ValueId self, int64_t dim) {
  const OpContext context(graph_, node, factors_.table, factors_.values);
  const int64_t size = OldSizes(self)[dim];
  const int64_t start = context.Int(2).value_or(0);
  if (!IsConstantThatChanged(self, dim) || IsRoot(node.outputs[0], dim)) return absl::OkStatus();
  if (start <= 1 || 4 * start < size) return absl::OkStatus();
  return UnknownPlace(start, self, dim);
}

// An end that moves with a dimension stays as far from its end as it was, which is not far.
absl::Status SizeRewriter::CheckEnd(const Node& node, ValueId self, int64_t dim, int64_t end) {
  const OpContext context(graph_, node, factors_.table, factors_.values);
  if (!IsConstantThatChanged(self, dim) || IsRoot(node.outputs[0], dim)) return absl::OkStatus();
  const int64_t stated_end = context.Int(3).value_or(0);
  const int64_t distance = OldSizes(self)[dim] - stated_end;
  const bool is_near = distance == 1 || 4 * distance < OldSizes(self)[dim];
  if (is_near && NewSizes(self)[dim] - end == distance) return absl::OkStatus();
  return UnknownPlace(stated_end, self, dim);
}

// Writes to places: what functionalization makes of x[:, S // 2:] = y.
absl::Status SizeRewriter::CheckWritten(const Node& node) const {
  const OpContext context(graph_, node, factors_.table, factors_.values);
  const ValueId self = context.Tensor(0);
  const int64_t dim = context.Dim(2, context.Rank(self));
  if (!IsConstantThatChanged(self, dim)) return absl::OkStatus();
  const int64_t size = OldSizes(self)[dim];
  const int64_t start = context.Int(3).value_or(0);
  if (node.op == "aten.select_scatter.default") {
    return start > 0 ? UnknownPlace(start, self, dim) : absl::OkStatus();
  }
  if (start > 1 && 4 * start >= size) return UnknownPlace(start, self, dim);
  const int64_t end = context.Int(4).value_or(size);
  return end > 1 && end < size ? UnknownPlace(end, self, dim) : absl::OkStatus();
}

absl::Status SizeRewriter::UnknownPlace(int64_t place, ValueId self, int64_t dim) const {
  return Unimplemented("place ", place, " of a dimension that was ", OldSizes(self)[dim],
                       " at export and is ", NewSizes(self)[dim],
                       " in the job: whether it moves with the length is not known; train with "
                       "the exported sizes, or export with dynamic shapes");
}

// A constant place within a dimension that grows: the model may mean this place, or one that was
// computed from the exported length (a half, the last but one). The first token and places that
// are counted from the end mean one thing only.
absl::Status SizeRewriter::CheckPlaces(const Node& node, ValueId self, int64_t dim) {
  if (!IsConstantThatChanged(self, dim)) return absl::OkStatus();
  const OpContext context(graph_, node, factors_.table, factors_.values);
  const int64_t size = OldSizes(self)[dim];
  const bool is_select = node.op == "aten.select.int";
  const int64_t place = context.Int(is_select ? 2 : 3).value_or(size);
  const bool is_constant = is_select ? place > 0 : place > 1 && place < size;
  if (!is_constant || (!is_select && Changed(node.outputs[0], dim))) return absl::OkStatus();
  return UnknownPlace(place, self, dim);
}

// Whether the archive itself says how each size that changed depends on the symbols.
bool SizeRewriter::IsSymbolic(ValueId id) const {
  const std::vector<int64_t> sizes = NewSizes(id);
  const TensorType& old_type = old_types_[id.index];
  for (size_t i = 0; i < sizes.size(); ++i) {
    const SymInt& old_size = old_type.sizes[i];
    if (sizes[i] != old_size.value && old_size.expr.empty()) return false;
  }
  return true;
}

void SizeRewriter::SetSizes(Node& node, size_t arg) {
  const std::vector<int64_t> sizes = NewSizes(node.outputs[0]);
  node.args[arg] = IntList(sizes.begin(), sizes.end());
}

// Any other op gets its new sizes from its operands. What has constants of sizes in it, or is not
// known, is explained only where the archive is symbolic.
absl::Status SizeRewriter::CheckExplained(const Node& node) {
  bool is_explained = FindOpRule(node.op) != nullptr && node.op != "aten.arange.start_step";
  const OpContext context(graph_, node, factors_.table, factors_.values);
  if (node.op.starts_with("aten.split") || node.op.starts_with("aten.chunk")) {
    // The cut is explained if the dimension that is cut keeps its size.
    const ValueId self = context.Tensor(0);
    const int64_t dim = context.Dim(2, context.Rank(self));
    is_explained = NewSizes(self)[dim] == OldSizes(self)[dim];
  }
  if (node.op == "aten.cat.default") is_explained = IsSumOfParts(context);
  // A stride makes a dimension of its own, which does not follow.
  if (node.op.starts_with("aten.conv")) is_explained = FollowsItsInput(context, 2);
  // Neither do windows that leave places out.
  if (node.op.starts_with("aten.avg_pool") || node.op.starts_with("aten.max_pool") ||
      node.op == "aten.unfold.default") {
    is_explained = FollowsItsInput(context, 0);
  }
  if (is_explained) return absl::OkStatus();
  bool any_changed = false;
  bool all_symbolic = true;
  const auto visit = [&](ValueId id) {
    any_changed = any_changed || Changed(id);
    all_symbolic = all_symbolic && IsSymbolic(id);
  };
  for (ValueId operand : OperandsOf(node)) visit(operand);
  for (ValueId output : node.outputs) visit(output);
  if (!any_changed || all_symbolic) return absl::OkStatus();
  return Unexplained();
}

bool SizeRewriter::FollowsItsInput(const OpContext& context, int64_t first_dim) const {
  const ValueId input = context.Tensor(0);
  for (int64_t dim = first_dim; dim < context.Rank(input); ++dim) {
    if (Changed(input, dim) != Changed(context.node().outputs[0], dim)) return false;
  }
  return true;
}

bool SizeRewriter::IsSumOfParts(const OpContext& context) const {
  const int64_t rank = static_cast<int64_t>(context.ResultSizes().size());
  const int64_t dim = context.Dim(1, rank);
  int64_t total = 0;
  for (ValueId part : context.Tensors(0)) {
    const std::vector<int64_t> sizes = NewSizes(part);
    if (static_cast<int64_t>(sizes.size()) == rank) total += sizes[dim];
  }
  return total == context.ResultSizes()[dim];
}

}  // namespace autosp
