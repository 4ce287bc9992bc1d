// The part of canonicalize that deals with windows that slide over dimensions.
#include <algorithm>

#include "compiler/ir/argument_access.h"
#include "compiler/passes/canonicalize_indexing.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

// Windows side by side as a dimension of their own: [.., n * size, ..] -> [.., n, size, ..].
ValueId CutIntoBlocks(const Node& node, ValueId self, int64_t dim, int64_t size,
                      GraphRewriter& rewriter) {
  TensorType type = rewriter.graph().type(self);
  const int64_t count = type.sizes[dim].value / size;
  type.sizes[dim] = SymInt(count);
  type.sizes.insert(type.sizes.begin() + dim + 1, SymInt(size));
  return rewriter.EmitOne(node, "aten.reshape.default", {self, IntList(type.sizes)},
                          Contiguous(type));
}

// Of an argument that has one number for each dimension or one for all.
int64_t NumberOf(const OpContext& context, size_t arg, int64_t place, int64_t absent) {
  const std::vector<int64_t> values = Values(context.Ints(arg));
  if (values.empty()) return absent;
  return values[std::min<size_t>(place, values.size() - 1)];
}

// Whether windows over that one of the last dimensions lie side by side and leave nothing.
bool IsSideBySide(const OpContext& context, int64_t place, int64_t dim, bool is_max) {
  const int64_t size = NumberOf(context, 1, place, 1);
  return size > 0 && NumberOf(context, 2, place, size) == size &&
         NumberOf(context, 3, place, 0) == 0 && (!is_max || NumberOf(context, 4, place, 1) == 1) &&
         context.Type(context.Tensor(0)).sizes[dim].value % size == 0;
}

// The maximum, or the mean, of blocks of `size` along one dimension.
ValueId OfBlocks(const Node& node, ValueId self, int64_t dim, int64_t size, bool is_max,
                 GraphRewriter& rewriter) {
  TensorType type = rewriter.graph().type(self);
  type.sizes[dim] = SymInt(type.sizes[dim].value / size);
  type = Contiguous(type);
  const ValueId blocks = CutIntoBlocks(node, self, dim, size, rewriter);
  if (!is_max) {
    return rewriter.EmitOne(node, "aten.mean.dim",
                            {blocks, IntList{SymInt(dim + 1)}, false, None{}}, type);
  }
  return rewriter.Emit(node, "aten.max.dim", {blocks, SymInt(dim + 1), false},
                       {type, ContiguousOf(DType::kI64, type.sizes)})[0];
}

// max_pool, avg_pool(x, kernel, stride, padding, ...) over the last dimension or two, where windows
// lie side by side: the maximum or the mean of blocks. Of equal numbers the first in the order of
// rows has the gradient, as the pool takes it: the first of a row, and of these the first.
//
//   before  %y = avg_pool1d(%x, [4], [4], [0])                     %x [2, 8, 16]  ->  [2, 8, 4]
//   after   %y = mean(reshape(%x, [2, 8, 4, 4]), [3])
absl::StatusOr<bool> RewritePool(const Node& node, GraphRewriter& rewriter) {
  const OpContext context(rewriter.graph(), node);
  const bool is_max = node.op.starts_with("aten.max_pool");
  const int64_t num_places = node.op.ends_with("1d.default") ? 1 : 2;
  const int64_t first = context.Rank(context.Tensor(0)) - num_places;
  if (first < 0 || (!is_max && node.args.size() > 6 && !IsNone(node.args[6]))) return false;
  for (int64_t place = 0; place < num_places; ++place) {
    if (!IsSideBySide(context, place, first + place, is_max)) return false;
  }
  ValueId result = context.Tensor(0);
  for (int64_t place = num_places; place-- > 0;) {
    const int64_t size = NumberOf(context, 1, place, 1);
    if (size == 1 && (place > 0 || result != context.Tensor(0))) continue;
    result = OfBlocks(node, result, first + place, size, is_max, rewriter);
  }
  rewriter.Replace(node.outputs[0], result);
  return true;
}

// adaptive_avg_pool(x, 1): the mean of all places.
absl::StatusOr<bool> RewriteAdaptivePool(const Node& node, GraphRewriter& rewriter) {
  const TensorType type = Contiguous(rewriter.graph().type(node.outputs[0]));
  const int64_t num_places = node.op == "aten.adaptive_avg_pool1d.default" ? 1 : 2;
  IntList dims;
  for (int64_t dim = type.rank() - num_places; dim < type.rank(); ++dim) {
    if (type.sizes[dim].value != 1) return false;
    dims.emplace_back(dim);
  }
  rewriter.Replace(node.outputs[0],
                   rewriter.EmitOne(node, "aten.mean.dim",
                                    {TensorArgument(node.args, 0), dims, true, None{}}, type));
  return true;
}

// Windows at each place: what stands at one place of each is a slice, which may be a shift of
// tokens (recognize-windows).
ValueId StackOfSlices(const Node& node, ValueId self, int64_t dim, int64_t size,
                      GraphRewriter& rewriter) {
  const TensorType type = Contiguous(rewriter.graph().type(node.outputs[0]));
  TensorType slice = type;
  slice.sizes.pop_back();
  TensorType column = type;
  column.sizes.back() = SymInt(1);
  ValueList parts;
  for (int64_t place = 0; place < size; ++place) {
    const ValueId at = rewriter.EmitOne(
        node, "aten.slice.Tensor",
        {self, SymInt(dim), SymInt(place), SymInt(place + type.sizes[dim].value), SymInt(1)},
        Contiguous(slice));
    parts.push_back(
        rewriter.EmitOne(node, "aten.unsqueeze.default", {at, SymInt(-1)}, Contiguous(column)));
  }
  return rewriter.EmitOne(node, "aten.cat.default", {parts, SymInt(-1)}, type);
}

// Any windows: a look-up of all their places.
ValueId LookUpWindows(const Node& node, ValueId self, int64_t dim, int64_t step,
                      GraphRewriter& rewriter) {
  const TensorType type = Contiguous(rewriter.graph().type(node.outputs[0]));
  const SymInt count = type.sizes[dim];
  const SymInt size = type.sizes.back();
  const TensorType column = ContiguousOf(DType::kI64, {count, SymInt(1)});
  ValueId first = rewriter.EmitOne(node, "aten.unsqueeze.default",
                                   {EmitRange(rewriter, node, 0, count.value), SymInt(1)}, column);
  first = rewriter.EmitOne(node, "aten.mul.Tensor", {first, SymInt(step)}, column);
  const ValueId places = rewriter.EmitOne(
      node, "aten.add.Tensor", {first, EmitRange(rewriter, node, 0, size.value), SymInt(1)},
      ContiguousOf(DType::kI64, {count, size}));
  ValueList slots(dim);
  slots.push_back(places);
  TensorType looked_up = type;
  looked_up.sizes.pop_back();
  looked_up.sizes.insert(looked_up.sizes.begin() + dim + 1, size);
  return rewriter.EmitOne(node, "aten.index.Tensor", {self, slots}, Contiguous(looked_up));
}

// unfold(x, dim, size, step): windows, the places of each in a last dimension.
absl::StatusOr<bool> RewriteUnfold(const Node& node, GraphRewriter& rewriter) {
  constexpr int64_t kMaxSlices = 16;
  const OpContext context(rewriter.graph(), node);
  const ValueId self = context.Tensor(0);
  const TensorType from = context.Type(self);
  const int64_t size = context.Int(2).value_or(1);
  const int64_t step = context.Int(3).value_or(1);
  if (from.rank() == 0 || size < 1) return false;
  const int64_t dim = context.Dim(1, from.rank());
  const TensorType type = Contiguous(rewriter.graph().type(node.outputs[0]));
  if (step == 1 && size > 1 && size <= kMaxSlices) {
    rewriter.Replace(node.outputs[0], StackOfSlices(node, self, dim, size, rewriter));
    return true;
  }
  const bool is_side_by_side = step == size && from.sizes[dim].value % size == 0;
  const ValueId windows = is_side_by_side ? CutIntoBlocks(node, self, dim, size, rewriter)
                                          : LookUpWindows(node, self, dim, step, rewriter);
  // The places of a window stand behind its dimension, and go last.
  IntList order;
  for (int64_t i = 0; i <= from.rank(); ++i) {
    if (i != dim + 1) order.emplace_back(i);
  }
  order.emplace_back(dim + 1);
  rewriter.Replace(node.outputs[0],
                   rewriter.EmitOne(node, "aten.permute.default", {windows, order}, type));
  return true;
}

}  // namespace

const RewriteTable& WindowRewrites() {
  static const auto& rewrites = *new RewriteTable{
      {"aten.adaptive_avg_pool1d.default", RewriteAdaptivePool},
      {"aten.adaptive_avg_pool2d.default", RewriteAdaptivePool},
      {"aten.avg_pool1d.default", RewritePool},
      {"aten.avg_pool2d.default", RewritePool},
      {"aten.max_pool1d.default", RewritePool},
      {"aten.max_pool2d.default", RewritePool},
      {"aten.unfold.default", RewriteUnfold},
  };
  return rewrites;
}

}  // namespace autosp
