#include "compiler/passes/canonicalize_products.h"

#include <algorithm>
#include <vector>

#include "compiler/ir/argument_access.h"
#include "compiler/passes/graph_rewriter.h"

namespace autosp {
namespace {

const Argument& Arg(const Node& node, size_t index) { return ArgumentAt(node.args, index); }

ValueId TensorArg(const Node& node, size_t index) { return TensorArgument(node.args, index); }

absl::StatusOr<bool> RenameToMatmul(const Node& node, GraphRewriter& rewriter) {
  const ValueId result = rewriter.EmitOne(node, "aten.matmul.default", {Arg(node, 0), Arg(node, 1)},
                                          rewriter.graph().type(node.outputs[0]));
  rewriter.Replace(node.outputs[0], result);
  return true;
}

// Of baddbmm and addbmm(input, _, _, beta, alpha): (a * alpha) x b + input * beta. Scaled is the
// factor, which is smaller than the scores that it makes. Where beta is 0 the input is not read.
void ReplaceByScaledSum(const Node& node, ValueId a, ValueId b, const TensorType& type,
                        GraphRewriter& rewriter) {
  const double beta = NumberArgument(node.args, 3).value_or(1.0);
  if (!IsNone(Arg(node, 4)) && !IsLiteral(node, 4, 1.0)) {
    const TensorType scaled = rewriter.graph().type(a);
    a = rewriter.EmitOne(node, "aten.mul.Tensor", {a, Arg(node, 4)}, scaled);
  }
  ValueId result = rewriter.EmitOne(node, "aten.matmul.default", {a, b}, type);
  if (beta != 0.0) {
    const Argument scale = IsNone(Arg(node, 3)) ? Argument(SymInt(1)) : Arg(node, 3);
    result = rewriter.EmitOne(node, "aten.add.Tensor", {result, Arg(node, 0), scale}, type);
  }
  rewriter.Replace(node.outputs[0], result);
}

absl::StatusOr<bool> RewriteBaddbmm(const Node& node, GraphRewriter& rewriter) {
  ReplaceByScaledSum(node, TensorArg(node, 1), TensorArg(node, 2),
                     Contiguous(rewriter.graph().type(node.outputs[0])), rewriter);
  return true;
}

// matmul(a, b) where one is a vector: it is a matrix of one row or column, which is dropped again.
//
//   before  %y = matmul(%a, %b)                            %a [4, 8], %b [8]  ->  [4]
//   after   %y = squeeze(matmul(%a, unsqueeze(%b, -1)), -1)
absl::StatusOr<bool> RewriteVectorProduct(const Node& node, GraphRewriter& rewriter) {
  ValueId operands[] = {TensorArg(node, 0), TensorArg(node, 1)};
  const Graph& graph = rewriter.graph();
  const bool is_vector[] = {graph.type(operands[0]).rank() == 1,
                            graph.type(operands[1]).rank() == 1};
  if (!is_vector[0] && !is_vector[1]) return false;
  TensorType type = Contiguous(graph.type(node.outputs[0]));
  IntList added;
  for (const int side : {1, 0}) {
    if (!is_vector[side]) continue;
    // The row of a stands before the columns, and the column of b last.
    const int64_t place = side == 0 ? -2 : -1;
    TensorType matrix = graph.type(operands[side]);
    matrix.sizes.insert(side == 0 ? matrix.sizes.begin() : matrix.sizes.end(), SymInt(1));
    operands[side] =
        rewriter.EmitOne(node, "aten.unsqueeze.default",
                         {operands[side], SymInt(side == 0 ? 0 : 1)}, Contiguous(matrix));
    type.sizes.insert(type.sizes.end() + (place + 1), SymInt(1));
    added.emplace_back(place);
  }
  const TensorType result = graph.type(node.outputs[0]);
  const ValueId product =
      rewriter.EmitOne(node, "aten.matmul.default", {operands[0], operands[1]}, Contiguous(type));
  rewriter.Replace(node.outputs[0], rewriter.EmitOne(node, "aten.squeeze.dims", {product, added},
                                                     Contiguous(result)));
  return true;
}

// Whether a node swaps the two dimensions of a matrix.
bool TurnsMatrix(const Node& node) {
  if (node.op == "aten.t.default") return true;
  const auto dim = [](const Argument& argument) {
    const auto* value = std::get_if<SymInt>(&argument);
    return value == nullptr ? 0 : (value->value + 2) % 2;
  };
  if (node.op == "aten.transpose.int") return dim(Arg(node, 1)) != dim(Arg(node, 2));
  const IntList* order =
      node.op == "aten.permute.default" ? std::get_if<IntList>(&Arg(node, 1)) : nullptr;
  return order != nullptr && !order->empty() && dim(Argument(order->front())) == 1;
}

// The weight that is multiplied as t(weight); invalid: something else is.
ValueId TransposedWeight(GraphRewriter& rewriter, ValueId matrix) {
  const Node* turn = rewriter.OldDefiner(matrix);
  if (turn == nullptr || turn->no_grad || !TurnsMatrix(*turn)) return {};
  const ValueId weight = TensorArg(*turn, 0);
  const GraphInput* input = rewriter.graph().FindInput(weight);
  const bool is_weight = input != nullptr && input->kind != InputKind::kUser;
  return is_weight ? weight : ValueId{};
}

// matmul(x, t(weight)) -> linear(x, weight), whose gradients need no transposed copies. A table of
// as many rows as there are tokens may be one of keys, which makes pairs: it stays.
bool BecomesLinear(const Node& node, GraphRewriter& rewriter) {
  const TensorType type = rewriter.graph().type(node.outputs[0]);
  if (type.rank() < 2 || rewriter.graph().type(TensorArg(node, 1)).rank() != 2) return false;
  const bool may_make_pairs =
      std::any_of(type.sizes.begin(), type.sizes.end() - 1,
                  [&](const SymInt& size) { return size.value == type.sizes.back().value; });
  if (may_make_pairs) return false;
  const ValueId weight = TransposedWeight(rewriter, TensorArg(node, 1));
  if (!weight.valid()) return false;
  rewriter.Replace(node.outputs[0], rewriter.EmitOne(node, "aten.linear.default",
                                                     {TensorArg(node, 0), weight, None{}}, type));
  return true;
}

absl::StatusOr<bool> RewriteMm(const Node& node, GraphRewriter& rewriter) {
  if (BecomesLinear(node, rewriter)) return true;
  return RenameToMatmul(node, rewriter);
}

absl::StatusOr<bool> RewriteMatmul(const Node& node, GraphRewriter& rewriter) {
  if (BecomesLinear(node, rewriter)) return true;
  return RewriteVectorProduct(node, rewriter);
}

// addbmm(input, a, b, beta, alpha) -> (a * alpha) x b + input * beta, where the product also sums
// over the batch: as one of two matrices.
absl::StatusOr<bool> RewriteAddbmm(const Node& node, GraphRewriter& rewriter) {
  const TensorType type = Contiguous(rewriter.graph().type(node.outputs[0]));
  ValueId a = TensorArg(node, 1);
  const TensorType left = rewriter.graph().type(a);
  const TensorType right = rewriter.graph().type(TensorArg(node, 2));
  const SymInt inner(left.sizes[0].value * left.sizes[2].value);
  a = rewriter.EmitOne(node, "aten.transpose.int", {a, SymInt(0), SymInt(1)},
                       ContiguousOf(left.dtype, {left.sizes[1], left.sizes[0], left.sizes[2]}));
  a = rewriter.EmitOne(node, "aten.reshape.default", {a, IntList{left.sizes[1], inner}},
                       ContiguousOf(left.dtype, {left.sizes[1], inner}));
  const ValueId b = rewriter.EmitOne(node, "aten.reshape.default",
                                     {TensorArg(node, 2), IntList{inner, right.sizes[2]}},
                                     ContiguousOf(right.dtype, {inner, right.sizes[2]}));
  ReplaceByScaledSum(node, a, b, type, rewriter);
  return true;
}

}  // namespace

const RewriteTable& ProductRewrites() {
  static const RewriteTable& rewrites = *new RewriteTable{
      {"aten.mm.default", RewriteMm},           {"aten.bmm.default", RenameToMatmul},
      {"aten.matmul.default", RewriteMatmul},   {"aten.addbmm.default", RewriteAddbmm},
      {"aten.baddbmm.default", RewriteBaddbmm},
  };
  return rewrites;
}

}  // namespace autosp
