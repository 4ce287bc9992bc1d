#include "compiler/passes/canonicalize_indexing.h"

#include <algorithm>
#include <utility>

#include "common/errors.h"
#include "compiler/ir/argument_access.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

// eye(n), eye(n, m): 1 where the row is the column.
//
//   before  %y = eye(4)
//   after   %y = to(eq(unsqueeze(arange(4), 1), arange(4)), f32)
absl::StatusOr<bool> RewriteEye(const Node& node, GraphRewriter& rewriter) {
  const TensorType type = Contiguous(rewriter.graph().type(node.outputs[0]));
  const ValueId columns = EmitRange(rewriter, node, 0, type.sizes[1].value);
  const ValueId rows = EmitRange(rewriter, node, 0, type.sizes[0].value);
  const ValueId column = rewriter.EmitOne(node, "aten.unsqueeze.default", {rows, SymInt(1)},
                                          ContiguousOf(DType::kI64, {type.sizes[0], SymInt(1)}));
  const ValueId is_equal = rewriter.EmitOne(node, "aten.eq.Tensor", {column, columns},
                                            ContiguousOf(DType::kBool, type.sizes));
  rewriter.Replace(node.outputs[0], CastTo(node, is_equal, type.dtype, rewriter));
  return true;
}

// diagonal(x, offset, dim1, dim2): the two dimensions last, and one index for both.
//
//   before  %y = diagonal(%x, 1, 0, 2)                     %x [4, 2, 4]  ->  [2, 3]
//   after   %y = index(permute(%x, [1, 0, 2]), [none, arange(0, 3), arange(1, 4)])
absl::StatusOr<bool> RewriteDiagonal(const Node& node, GraphRewriter& rewriter) {
  const OpContext context(rewriter.graph(), node);
  const ValueId self = context.Tensor(0);
  const TensorType from = context.Type(self);
  const TensorType type = Contiguous(rewriter.graph().type(node.outputs[0]));
  const int64_t first = context.Dim(2, from.rank(), 0);
  const int64_t second = context.Dim(3, from.rank(), 1);
  IntList order;
  for (int64_t i = 0; i < from.rank(); ++i) {
    if (i != first && i != second) order.emplace_back(i);
  }
  ValueList slots(order.size());
  order.emplace_back(first);
  order.emplace_back(second);
  TensorType moved = from;
  for (size_t i = 0; i < order.size(); ++i) moved.sizes[i] = from.sizes[order[i].value];
  const ValueId last =
      rewriter.EmitOne(node, "aten.permute.default", {self, order}, Contiguous(moved));
  const int64_t offset = context.Int(1).value_or(0);
  const int64_t count = type.sizes.back().value;
  for (const int64_t start : {std::max<int64_t>(-offset, 0), std::max<int64_t>(offset, 0)}) {
    slots.push_back(EmitRange(rewriter, node, start, start + count));
  }
  rewriter.Replace(node.outputs[0],
                   rewriter.EmitOne(node, "aten.index.Tensor", {last, slots}, type));
  return true;
}

// as_strided(x, sizes, strides): of a row of all elements, which lies in order wherever x is put
// together from shards (resize-inputs refuses what reads other memory).
//
//   before  %y = as_strided(%x, [4, 3], [2, 1])            %x [2, 5]
//   after   %y = as_strided(reshape(%x, [10]), [4, 3], [2, 1])
absl::StatusOr<bool> RewriteAsStrided(const Node& node, GraphRewriter& rewriter) {
  const ValueId self = TensorArgument(node.args, 0);
  const TensorType from = rewriter.graph().type(self);
  if (from.rank() == 1) return false;
  TensorType row = from;
  row.sizes = {SymInt(from.numel())};
  std::vector<Argument> args = node.args;
  args[0] =
      rewriter.EmitOne(node, "aten.reshape.default", {self, IntList(row.sizes)}, Contiguous(row));
  const TensorType type = rewriter.graph().type(node.outputs[0]);
  rewriter.Replace(node.outputs[0], rewriter.EmitOne(node, node.op, std::move(args), type));
  return true;
}

// fftshift(x, dims), ifftshift(x, dims): each dimension of n places is rolled by n / 2, or back.
//
//   before  %y = fft_fftshift(%x, [1])                     %x [2, 5]
//   after   %y = roll(%x, [2], [1])
absl::StatusOr<bool> RewriteShift(const Node& node, GraphRewriter& rewriter) {
  const OpContext context(rewriter.graph(), node);
  const ValueId self = context.Tensor(0);
  const TensorType type = rewriter.graph().type(node.outputs[0]);
  const bool is_inverse = node.op == "aten.fft_ifftshift.default";
  IntList shifts;
  IntList dims;
  for (const int64_t dim : context.DimList(1, context.Rank(self))) {
    const int64_t size = type.sizes[dim].value;
    shifts.emplace_back(is_inverse ? size - size / 2 : size / 2);
    dims.emplace_back(dim);
  }
  const ValueId rolled =
      rewriter.EmitOne(node, "aten.roll.default", {self, shifts, dims}, Contiguous(type));
  rewriter.Replace(node.outputs[0], rolled);
  return true;
}

// rfftfreq(n, d): 0, 1, ... n / 2, each by n d. fftfreq(n, d): those from 0 to (n - 1) / 2, and
// -(n / 2) to -1.
//
//   before  %y = fft_fftfreq(5, 0.5)
//   after   %y = mul(sub(remainder(add(to(arange(0, 5), f32), 2), 5), 2), 0.4)
absl::StatusOr<bool> RewriteFrequencies(const Node& node, GraphRewriter& rewriter) {
  const OpContext context(rewriter.graph(), node);
  const int64_t n = context.Int(0).value_or(0);
  const double spacing = NumberArgument(node.args, 1).value_or(1);
  const TensorType type = Contiguous(rewriter.graph().type(node.outputs[0]));
  if (n < 1 || spacing == 0 || !IsFloating(type.dtype)) {
    return Unimplemented("frequencies of ", n, " places are numbers of floating point, 1 or more");
  }
  ValueId now =
      CastTo(node, EmitRange(rewriter, node, 0, type.sizes[0].value), type.dtype, rewriter);
  if (node.op == "aten.fft_fftfreq.default") {
    const auto half = static_cast<double>(n / 2);
    now = rewriter.EmitOne(node, "aten.add.Tensor", {now, half, SymInt(1)}, type);
    now = rewriter.EmitOne(node, "aten.remainder.Scalar", {now, static_cast<double>(n)}, type);
    now = rewriter.EmitOne(node, "aten.sub.Tensor", {now, half, SymInt(1)}, type);
  }
  const double scale = 1.0 / (static_cast<double>(n) * spacing);
  rewriter.Replace(node.outputs[0], rewriter.EmitOne(node, "aten.mul.Tensor", {now, scale}, type));
  return true;
}

}  // namespace

const RewriteTable& IndexingRewrites() {
  static const auto& rewrites = *new RewriteTable{
      {"aten.as_strided.default", RewriteAsStrided},
      {"aten.diagonal.default", RewriteDiagonal},
      {"aten.eye.default", RewriteEye},
      {"aten.eye.m", RewriteEye},
      {"aten.fft_fftfreq.default", RewriteFrequencies},
      {"aten.fft_fftshift.default", RewriteShift},
      {"aten.fft_ifftshift.default", RewriteShift},
      {"aten.fft_rfftfreq.default", RewriteFrequencies},
  };
  return rewrites;
}

}  // namespace autosp
