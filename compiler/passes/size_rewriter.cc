#include "compiler/passes/size_rewriter.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <optional>
#include <set>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/fourier.h"
#include "compiler/passes/size_arguments.h"
#include "compiler/passes/size_dependence.h"
#include "compiler/rules/op_context.h"
#include "compiler/rules/op_rule.h"

namespace autosp {

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

// Names a size that changes, of the results before the operands.
absl::Status SizeRewriter::Unexplained(const Node& node) const {
  const OpContext context(graph_, node, factors_.table, factors_.values);
  const char* const who = FindOpRule(node.op) == nullptr ? "an op without a rule" : "this op";
  const auto refuse = [&](const SizeOf& size) {
    return InvalidArgument("dimension ", size.dim, " of %", graph_.value(size.id).name, " was ",
                           OldSizes(size.id)[size.dim], " at export and is ",
                           NewSizes(size.id)[size.dim], " in the job, and how ", who,
                           " follows that is not known; train with the exported sizes, or export "
                           "with dynamic shapes");
  };
  if (const std::optional<SizeOf> size = UnknownSize(context)) return refuse(*size);
  std::vector<ValueId> values = node.outputs;
  const std::vector<ValueId> operands = OperandsOf(node);
  values.insert(values.end(), operands.begin(), operands.end());
  for (const ValueId id : values) {
    for (int64_t dim = 0; dim < graph_.type(id).rank(); ++dim) {
      if (Changed(id, dim)) return refuse({id, dim});
    }
  }
  return absl::OkStatus();
}

absl::Status SizeRewriter::Rewrite(Node& node) {
  if (node.op == "aten.slice.Tensor") return RewriteSlice(node);
  if (node.op == "aten.select.int") return RewriteSelect(node);
  if (IsFourier(node.op)) return RewriteFourier(node);
  if (node.op == "aten.slice_scatter.default" || node.op == "aten.select_scatter.default") {
    RETURN_IF_ERROR(CheckWritten(node));
  }
  RETURN_IF_ERROR(CheckOperandSizes(graph_, node));
  RETURN_IF_ERROR(CheckPairs(node));
  RETURN_IF_ERROR(CheckFarPlaces(node));
  if (node.op == "aten.as_strided.default") {
    const ValueId self = TensorArgument(node.args, 0);
    RETURN_IF_ERROR(CheckStridedView(graph_, node, old_types_[self.index]));
  }
  bool any_changed = false;
  for (ValueId output : node.outputs) any_changed = any_changed || Changed(output);
  if (!any_changed) return CheckExplained(node);
  if (const std::optional<size_t> sizes = SizeArgument(node.op)) {
    SetSizes(node, *sizes);
    return absl::OkStatus();
  }
  if (RewriteSizeArgument(graph_, node)) return absl::OkStatus();
  if (node.op == "aten.eye.default" || node.op == "aten.eye.m") return RewriteEye(node);
  if (node.op == "aten.unflatten.int") return RewriteUnflatten(node);
  if (node.op == "aten.repeat.default" || node.op == "aten.tile.default") {
    return RewriteRepeat(node);
  }
  return CheckExplained(node);
}

// A transform of as many places as a constant dimension has, or of the frequencies of such a
// dimension, follows it. Twice as many may be a number of their own, which no size explains. An
// archive that writes what changes as expressions has the places as one too.
absl::Status SizeRewriter::RewriteFourier(Node& node) {
  const OpContext context(graph_, node, factors_.table, factors_.values);
  const ValueId self = context.Tensor(0);
  const ValueId result = node.outputs[0];
  const int64_t dim = context.Int(kFftDim).value_or(0);
  if (!IsConstantThatChanged(self, dim) && !IsConstantThatChanged(result, dim)) {
    return absl::OkStatus();
  }
  const bool to_signal = node.op == kFftC2r;
  const ValueId signal = to_signal ? result : self;
  const int64_t n = context.Int(kFftN).value_or(0);
  const bool follows = to_signal ? Changed(result, dim) : n == OldSizes(self)[dim];
  if (!follows) {
    return Unimplemented("transforms ", n, " places of dimension ", dim, " of %",
                         graph_.value(self).name, ", which was ", OldSizes(self)[dim],
                         " at export and is ", NewSizes(self)[dim],
                         " in the job: whether the number follows is not known; export with "
                         "dynamic shapes, or train with the exported sizes");
  }
  node.args[kFftN] = SymInt(NewSizes(signal)[dim]);
  node.args[kFftLength] = SymInt(NewSizes(result)[dim]);
  return absl::OkStatus();
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
    return Unexplained(node);
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
    if (size == 0 || to[i] % size != 0) return Unexplained(node);
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
  if (const int64_t parts = PartsOf(node)) {
    RETURN_IF_ERROR(CheckParts(node, parts));
    const bool is_front = context.Int(2).value_or(0) == 0;
    if (!is_front) node.args[2] = SymInt(size - wanted);
    node.args[3] = SymInt(is_front ? wanted : size);
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(CheckStart(node, self, dim));
  int64_t start = context.Int(2).value_or(0);
  if (start < 0) start += size;
  if (start + (wanted - 1) * step >= size) {
    return InvalidArgument(
        "takes ", wanted, " of a dimension of ", size, "; the model is made for at most ", size,
        " there: choose a training.seq_len that fits, or a model with a larger table",
        graph_.FindInput(self) != nullptr
            ? ""
            : "; if tokens were padded to the exported length, export with dynamic shapes");
  }
  const int64_t stated_end = context.Int(3).value_or(std::numeric_limits<int64_t>::max());
  const int64_t end = std::min(stated_end < 0 ? stated_end + size : stated_end, size);
  const int64_t got = (end - start + step - 1) / step;
  if (got == wanted) return CheckPlaces(node, self, dim);
  // An end that moves with the dimension says itself how many it takes.
  const int64_t old_size = OldSizes(self)[dim];
  if (stated_end < 0 || stated_end > old_size) return Unexplained(node);
  // x[:, :S] of all S tokens.
  if (stated_end == old_size && start + wanted * step == size) {
    node.args[3] = SymInt(size);
    return absl::OkStatus();
  }
  if (stated_end == old_size) return Unexplained(node);
  RETURN_IF_ERROR(CheckEnd(node, self, dim, start + wanted * step));
  node.args[3] = SymInt(start + wanted * step);
  return absl::OkStatus();
}

// Of how many equal parts of a dimension that changes a slice or a chunk is one; 0: of none.
int64_t SizeRewriter::PartsOf(const Node& node) const {
  const OpContext context(graph_, node, factors_.table, factors_.values);
  const ValueId self = context.Tensor(0);
  const int64_t dim = context.Dim(node.op == "aten.slice.Tensor" ? 1 : 2, context.Rank(self));
  if (!IsConstantThatChanged(self, dim)) return 0;
  return factors_.table.PartsOf(factors_.values[node.outputs[0].index][dim],
                                factors_.values[self.index][dim]);
}

absl::Status SizeRewriter::CheckParts(const Node& node, int64_t parts) const {
  const OpContext context(graph_, node, factors_.table, factors_.values);
  const ValueId self = context.Tensor(0);
  const int64_t dim = context.Dim(node.op == "aten.slice.Tensor" ? 1 : 2, context.Rank(self));
  const int64_t size = NewSizes(self)[dim];
  if (size % parts == 0) return absl::OkStatus();
  return InvalidArgument("cuts dimension ", dim, " of %", graph_.value(self).name, ", which is ",
                         size, " in the job, into ", parts,
                         " equal parts: set the batch or training.seq_len so that it is a "
                         "multiple of ",
                         parts);
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
  // Of x[1:2] both places are constants, also where that was the last.
  const bool has_end = !is_select && context.Int(3) == size;
  const bool is_constant = is_select ? place > 0 : place > 1 && (place < size || has_end);
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

// Whether sizes of the results are those of the archive, whatever those of the operands.
bool SizeRewriter::IsOpaque(const Node& node) const {
  return factors_.nodes[static_cast<size_t>(&node - graph_.nodes.data())].is_opaque;
}

namespace {

bool AddsPlaces(std::string_view op) {
  return op.starts_with("aten.conv_transpose") || op.find("upsample_") != std::string_view::npos;
}

}  // namespace

// Any other op gets its new sizes from its operands. What has constants of sizes in it, or is not
// known, is explained only where the archive is symbolic.
absl::Status SizeRewriter::CheckExplained(const Node& node) {
  const OpContext context(graph_, node, factors_.table, factors_.values);
  if (node.op == "aten.chunk.default") {
    if (const int64_t parts = PartsOf(node)) return CheckParts(node, parts);
  }
  bool is_explained = !IsOpaque(node) && !UnknownSize(context);
  if (node.op == "aten.cat.default") is_explained = IsSumOfParts(context);
  if (node.op == "aten.stack.default") is_explained = is_explained && HasAllParts(context);
  // Places that strides or scales add, of which there are more for each of the operand's.
  if (AddsPlaces(node.op)) {
    is_explained = is_explained && KeepsPlaces(context);
  } else if (node.op.starts_with("aten.conv")) {
    // A stride makes a dimension of its own, which does not follow.
    is_explained = FollowsItsInput(context, 2);
  }
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
  return Unexplained(node);
}

// A size that changes, and that a number of the op may be made of which makes no sense beside
// another.
std::optional<SizeRewriter::SizeOf> SizeRewriter::UnknownSize(const OpContext& context) const {
  const Node& node = context.node();
  const ValueId result = node.outputs[0];
  const ValueId self = context.Tensor(0);
  std::optional<SizeOf> size;
  if (node.op.starts_with("aten.arange.") || node.op == "aten.histc.default") {
    size = {result, 0};
  } else if (node.op == "aten.repeat_interleave.self_int") {
    size = {result, context.Dim(2, context.Rank(result), 0)};
  } else if (node.op == "aten.unbind.int" || node.op == "aten.slice.Tensor") {
    size = {self, context.Dim(1, context.Rank(self))};
  } else if (node.op.starts_with("aten.split") || node.op.starts_with("aten.chunk")) {
    // The cut is explained if the dimension that is cut keeps its size.
    size = {self, context.Dim(2, context.Rank(self))};
  } else if (node.op == "aten.group_norm.default") {
    size = {self, 1};
  }
  if (size && !Changed(size->id, size->dim)) size.reset();
  return size;
}

// What stands beside what in a dimension that was put together, as two views of a batch are: half
// of it away, which a constant says at one size alone. In one that the inputs have, a constant is
// warned of.
absl::Status SizeRewriter::CheckFarPlaces(const Node& node) const {
  const OpContext context(graph_, node);
  const auto check = [&](int64_t place, ValueId id, int64_t dim) {
    const int64_t distance = std::abs(place);
    const bool is_far = distance > 2 && 4 * distance >= OldSizes(id)[dim];
    const bool is_made = IsConstantThatChanged(id, dim) && !IsRoot(id, dim);
    return is_far && is_made ? UnknownPlace(place, id, dim) : absl::OkStatus();
  };
  const ValueId self = context.Tensor(0);
  if (node.op == "aten.arange.start") {
    return check(context.Int(0).value_or(0), node.outputs[0], 0);
  }
  if (node.op == "aten.diagonal.default") {
    return check(context.Int(1).value_or(0), self, context.Dim(2, context.Rank(self), 0));
  }
  const IntList shifts = context.Ints(1);
  if (node.op != "aten.roll.default") return absl::OkStatus();
  const std::vector<int64_t> dims = context.DimList(2, context.Rank(self));
  for (size_t i = 0; i < std::min(shifts.size(), dims.size()); ++i) {
    RETURN_IF_ERROR(check(shifts[i].value, self, dims[i]));
  }
  return absl::OkStatus();
}

// The op that makes pairs of so many places, of which these are one side.
const Node* SizeRewriter::PairsOf(ValueId places) const {
  static const auto& makers =
      *new std::set<std::string_view>{"aten.triu_indices.default", "aten.tril_indices.default",
                                      "aten.combinations.default", "aten.cartesian_prod.default"};
  while (places.valid() && definer_[places.index] >= 0) {
    const Node& node = graph_.nodes[definer_[places.index]];
    if (makers.contains(node.op)) return &node;
    if (!MovesElements(node) && node.op != "aten.unbind.int") return nullptr;
    places = TensorArgument(node.args, 0);
  }
  return nullptr;
}

// w[:, rows, columns] of the pairs that triu_indices(S, S) gave at export.
absl::Status SizeRewriter::CheckPairs(const Node& node) const {
  if (node.op != "aten.index.Tensor" && node.op != "aten.index_put.default") {
    return absl::OkStatus();
  }
  const OpContext context(graph_, node);
  const ValueId self = context.Tensor(0);
  const std::vector<ValueId> slots = context.Tensors(1);
  for (size_t dim = 0; dim < slots.size(); ++dim) {
    const Node* pairs = slots[dim].valid() ? PairsOf(slots[dim]) : nullptr;
    if (pairs == nullptr || !IsConstantThatChanged(self, static_cast<int64_t>(dim))) continue;
    return Unimplemented("looks up the pairs that ", Describe(graph_, *pairs),
                         " made for the exported sizes, and dimension ", dim, " of %",
                         graph_.value(self).name, " was ", OldSizes(self)[dim],
                         " at export and is ", NewSizes(self)[dim],
                         " in the job; compare two ranges instead (rows[:, None] < columns), "
                         "which follow, or train with the exported sizes");
  }
  return absl::OkStatus();
}

bool SizeRewriter::FollowsItsInput(const OpContext& context, int64_t first_dim) const {
  const ValueId input = context.Tensor(0);
  for (int64_t dim = first_dim; dim < context.Rank(input); ++dim) {
    if (Changed(input, dim) != Changed(context.node().outputs[0], dim)) return false;
  }
  return true;
}

bool SizeRewriter::KeepsPlaces(const OpContext& context) const {
  const ValueId input = context.Tensor(0);
  const ValueId result = context.node().outputs[0];
  for (int64_t dim = 2; dim < context.Rank(input); ++dim) {
    if (Changed(input, dim) || Changed(result, dim)) return false;
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

// Of a stack, whose parts are listed one by one.
bool SizeRewriter::HasAllParts(const OpContext& context) const {
  const std::vector<int64_t> sizes = context.ResultSizes();
  const int64_t dim = context.Dim(1, static_cast<int64_t>(sizes.size()));
  return static_cast<int64_t>(context.Tensors(0).size()) == sizes[dim];
}

}  // namespace autosp
