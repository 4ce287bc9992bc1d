#include <algorithm>
#include <iterator>
#include <limits>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/passes/canonicalize_indexing.h"
#include "compiler/passes/canonicalize_losses.h"
#include "compiler/passes/canonicalize_products.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/rules/op_context.h"

namespace autosp {

bool IsLiteral(const Node& node, size_t index, double value) {
  const auto* symbolic = ArgumentAs<SymInt>(node.args, index);
  if (symbolic != nullptr && !symbolic->expr.empty()) return false;
  return NumberArgument(node.args, index) == value;
}

namespace {

const Argument& Arg(const Node& node, size_t index) { return ArgumentAt(node.args, index); }

ValueId TensorArg(const Node& node, size_t index) { return TensorArgument(node.args, index); }

// In a no_grad region even an identity does something: it ends the gradient.
absl::StatusOr<bool> DropIdentity(const Node& node, GraphRewriter& rewriter) {
  if (node.no_grad) return false;
  const ValueId self = rewriter.Current(TensorArg(node, 0));
  if (!self.valid() || !SameType(rewriter.graph(), self, node.outputs[0])) return false;
  rewriter.Replace(node.outputs[0], self);
  return true;
}

// to.dtype_layout, to.device, to.other, _to_copy: there is one device, so what is left is a cast.
absl::StatusOr<bool> RewriteTo(const Node& node, GraphRewriter& rewriter) {
  ASSIGN_OR_RETURN(const bool dropped, DropIdentity(node, rewriter));
  if (dropped) return true;
  if (node.op == "aten.to.dtype") return false;
  const TensorType type = rewriter.graph().type(node.outputs[0]);
  const ValueId cast = rewriter.EmitOne(
      node, "aten.to.dtype", {TensorArg(node, 0), type.dtype, false, false, None{}}, type);
  rewriter.Replace(node.outputs[0], cast);
  return true;
}

absl::StatusOr<bool> DropAddOfZero(const Node& node, GraphRewriter& rewriter) {
  if (!IsLiteral(node, 1, 0.0)) return false;
  return DropIdentity(node, rewriter);
}

absl::StatusOr<bool> DropMulByOne(const Node& node, GraphRewriter& rewriter) {
  if (!IsLiteral(node, 1, 1.0)) return false;
  return DropIdentity(node, rewriter);
}

// repeat_interleave(x, copies, dim): views and a copy, whose copies are a factor of their own.
absl::StatusOr<bool> RewriteRepeat(const Node& node, GraphRewriter& rewriter) {
  const std::optional<int64_t> copies = IntegerArgument(node.args, 1);
  std::optional<int64_t> dim = IntegerArgument(node.args, 2);
  const bool is_row = rewriter.graph().type(TensorArg(node, 0)).rank() == 1;
  if (!dim && is_row) dim = 0;
  if (!copies || *copies < 1 || !dim) return false;  // without dim it flattens
  if (*dim < 0) *dim += rewriter.graph().type(node.outputs[0]).rank();
  rewriter.Replace(node.outputs[0], RepeatAlong(rewriter, node, TensorArg(node, 0), *dim, *copies));
  return true;
}

// repeat(x, repeats), tile(x, repeats): copies get dimensions of their own, in front of what they
// repeat.
//
//   before  %y = repeat(%x, [3, 1, 2])                 %x [4, 6]  ->  [3, 4, 12]
//   after   %y = reshape(expand(view(%x, [1, 4, 1, 6]), [3, 4, 2, 6]), [3, 4, 12])
absl::StatusOr<bool> RewriteTile(const Node& node, GraphRewriter& rewriter) {
  const TensorType type = rewriter.graph().type(node.outputs[0]);
  const TensorType from = rewriter.graph().type(TensorArg(node, 0));
  const auto added = static_cast<size_t>(type.rank() - from.rank());
  // Where nothing is repeated no op would be left to end the gradient.
  if (type.numel() == 0 || (node.no_grad && Values(type.sizes) == Values(from.sizes))) return false;
  TensorType apart = from;
  TensorType copied = from;
  apart.sizes.clear();
  copied.sizes.clear();
  for (size_t i = 0; i < type.sizes.size(); ++i) {
    const SymInt size = i < added ? SymInt(1) : from.sizes[i - added];
    if (size.value != 1 && size.value != type.sizes[i].value) {
      apart.sizes.emplace_back(1);
      copied.sizes.emplace_back(type.sizes[i].value / size.value);
    }
    apart.sizes.push_back(size);
    copied.sizes.push_back(size.value == 1 ? type.sizes[i] : size);
  }
  ValueId value = TensorArg(node, 0);
  const auto emit = [&](std::string_view op, std::vector<Argument> more, const TensorType& to) {
    if (Values(rewriter.graph().type(value).sizes) == Values(to.sizes)) return;
    std::vector<Argument> args = {value};
    args.insert(args.end(), more.begin(), more.end());
    value = rewriter.EmitOne(node, op, std::move(args), Contiguous(to));
  };
  emit("aten.reshape.default", {IntList(apart.sizes)}, apart);
  emit("aten.expand.default", {IntList(copied.sizes), false}, copied);
  emit("aten.reshape.default", {IntList(type.sizes)}, type);
  rewriter.Replace(node.outputs[0], value);
  return true;
}

// softmax(x, dim, dtype?) -> _softmax(x.to(dtype), dim, false), whose derivative keeps its result.
absl::StatusOr<bool> RewriteSoftmax(const Node& node, GraphRewriter& rewriter) {
  const TensorType type = rewriter.graph().type(node.outputs[0]);
  const ValueId input = CastTo(node, TensorArg(node, 0), type.dtype, rewriter);
  const std::string_view op =
      node.op == "aten.softmax.int" ? "aten._softmax.default" : "aten._log_softmax.default";
  const ValueId result = rewriter.EmitOne(node, op, {input, Arg(node, 1), false}, Contiguous(type));
  rewriter.Replace(node.outputs[0], result);
  return true;
}

// The results of broadcast_tensors are views of one operand each.
absl::StatusOr<bool> RewriteBroadcast(const Node& node, GraphRewriter& rewriter) {
  const auto* operands = std::get_if<ValueList>(&Arg(node, 0));
  if (node.no_grad || operands == nullptr || operands->size() != node.outputs.size()) return false;
  for (size_t i = 0; i < operands->size(); ++i) {
    ValueId result = (*operands)[i];
    if (!SameType(rewriter.graph(), result, node.outputs[i])) {
      const TensorType type = rewriter.graph().type(node.outputs[i]);
      result =
          rewriter.EmitOne(node, "aten.expand.default", {result, IntList(type.sizes), false}, type);
    }
    rewriter.Replace(node.outputs[i], result);
  }
  return true;
}

// stack(tensors, dim) -> cat of each with a dimension of size 1 there.
absl::StatusOr<bool> RewriteStack(const Node& node, GraphRewriter& rewriter) {
  const auto* operands = std::get_if<ValueList>(&Arg(node, 0));
  if (operands == nullptr || operands->empty()) return false;
  TensorType type = Contiguous(rewriter.graph().type(node.outputs[0]));
  int64_t dim = IntegerArgument(node.args, 1).value_or(0);
  if (dim < 0) dim += type.rank();
  ValueList parts;
  for (ValueId operand : *operands) {
    TensorType part = rewriter.graph().type(operand);
    part.sizes.insert(part.sizes.begin() + dim, SymInt(1));
    parts.push_back(
        rewriter.EmitOne(node, "aten.unsqueeze.default", {operand, SymInt(dim)}, Contiguous(part)));
  }
  const ValueId result = rewriter.EmitOne(node, "aten.cat.default", {parts, SymInt(dim)}, type);
  rewriter.Replace(node.outputs[0], result);
  return true;
}

bool HasElements(const TensorType& type) {
  return std::ranges::none_of(
      type.sizes, [](const SymInt& size) { return size.expr.empty() && size.value == 0; });
}

// cat leaves out what is empty: a cache that holds no keys yet is a vector without elements, which
// goes with tensors of any rank.
//
//   before  %y = cat([%none, %x], 2)         %none [0], %x [2, 4, 8, 16]  ->  [2, 4, 8, 16]
//   after   %y = contiguous(%x)
absl::StatusOr<bool> DropEmptyParts(const Node& node, GraphRewriter& rewriter) {
  const auto* operands = std::get_if<ValueList>(&Arg(node, 0));
  if (operands == nullptr) return false;
  const TensorType type = rewriter.graph().type(node.outputs[0]);
  ValueList parts;
  std::ranges::copy_if(*operands, std::back_inserter(parts), [&](ValueId operand) {
    return HasElements(rewriter.graph().type(operand));
  });
  if (parts.size() == operands->size() || parts.empty()) return false;
  // What is left out has a say in the result's type.
  for (ValueId& part : parts) part = CastTo(node, part, type.dtype, rewriter);
  const ValueId result =
      parts.size() == 1
          ? rewriter.EmitOne(node, "aten.contiguous.default", {parts[0]}, Contiguous(type))
          : rewriter.EmitOne(node, "aten.cat.default", {parts, Arg(node, 1)}, type);
  rewriter.Replace(node.outputs[0], result);
  return true;
}

// isfinite(x) -> |x| < infinity, which no comparison says of what is no number.
absl::StatusOr<bool> RewriteIsFinite(const Node& node, GraphRewriter& rewriter) {
  const ValueId self = TensorArg(node, 0);
  if (!IsFloating(rewriter.graph().type(self).dtype)) return false;
  const ValueId size =
      rewriter.EmitOne(node, "aten.abs.default", {self}, rewriter.graph().type(self));
  rewriter.Replace(
      node.outputs[0],
      rewriter.EmitOne(node, "aten.lt.Scalar", {size, std::numeric_limits<double>::infinity()},
                       rewriter.graph().type(node.outputs[0])));
  return true;
}

absl::StatusOr<bool> RewriteExpandAs(const Node& node, GraphRewriter& rewriter) {
  const TensorType type = rewriter.graph().type(node.outputs[0]);
  const ValueId result = rewriter.EmitOne(node, "aten.expand.default",
                                          {Arg(node, 0), IntList(type.sizes), false}, type);
  rewriter.Replace(node.outputs[0], result);
  return true;
}

absl::StatusOr<bool> RewritePad(const Node& node, GraphRewriter& rewriter) {
  const auto* mode = std::get_if<std::string>(&Arg(node, 2));
  if (mode != nullptr && *mode != "constant") return false;
  Argument fill = Arg(node, 3);
  if (IsNone(fill)) fill = SymInt(0);
  const TensorType type = rewriter.graph().type(node.outputs[0]);
  // Integers are filled with integers, whatever the archive writes.
  if (const auto* value = std::get_if<double>(&fill); value != nullptr && !IsFloating(type.dtype)) {
    fill = SymInt(static_cast<int64_t>(*value));
  }
  const ValueId result = rewriter.EmitOne(node, "aten.constant_pad_nd.default",
                                          {Arg(node, 0), Arg(node, 1), fill}, Contiguous(type));
  rewriter.Replace(node.outputs[0], result);
  return true;
}

// glu(x, dim): the first half, gated by the second, which is work of each position.
absl::StatusOr<bool> RewriteGlu(const Node& node, GraphRewriter& rewriter) {
  const OpContext context(rewriter.graph(), node);
  const ValueId self = context.Tensor(0);
  if (context.Rank(self) == 0) return false;
  const int64_t dim = IsNone(ArgumentAt(node.args, 1)) ? context.Rank(self) - 1
                                                       : context.Dim(1, context.Rank(self));
  const TensorType type = Contiguous(rewriter.graph().type(node.outputs[0]));
  const SymInt half = type.sizes[dim];
  const auto cut = [&](SymInt from, SymInt to) {
    return rewriter.EmitOne(node, "aten.slice.Tensor",
                            {self, SymInt(dim), std::move(from), std::move(to), SymInt(1)}, type);
  };
  const ValueId gated = cut(SymInt(0), half);
  const ValueId gate =
      rewriter.EmitOne(node, "aten.sigmoid.default", {cut(half, SymInt(2 * half.value))}, type);
  rewriter.Replace(node.outputs[0], rewriter.EmitOne(node, "aten.mul.Tensor", {gated, gate}, type));
  return true;
}

// prelu(x, w): x where it is positive, w x elsewhere; w is one number, or has one for each place of
// dimension 1.
absl::StatusOr<bool> RewritePrelu(const Node& node, GraphRewriter& rewriter) {
  const ValueId x = TensorArg(node, 0);
  const ValueId weight = TensorArg(node, 1);
  const TensorType type = Contiguous(rewriter.graph().type(x));
  const TensorType weight_type = rewriter.graph().type(weight);
  const bool is_number = weight_type.rank() == 0 || weight_type.sizes[0].value == 1;
  if (weight_type.dtype != type.dtype || (!is_number && type.rank() < 2)) return false;
  std::vector<SymInt> sizes(type.sizes.size(), SymInt(1));
  if (!is_number) sizes[1] = weight_type.sizes[0];
  const ValueId slope = ReshapeTo(node, weight, std::move(sizes), rewriter);
  TensorType chosen = type;
  chosen.dtype = DType::kBool;
  const ValueId is_positive = rewriter.EmitOne(node, "aten.gt.Scalar", {x, SymInt(0)}, chosen);
  const ValueId scaled = rewriter.EmitOne(node, "aten.mul.Tensor", {x, slope}, type);
  rewriter.Replace(node.outputs[0],
                   rewriter.EmitOne(node, "aten.where.self", {is_positive, x, scaled}, type));
  return true;
}

// rsub(x, c) -> -x + c, of numbers alone: 1 - loss, which is added to other losses. rsub(x, y) of
// tensors is y - x.
absl::StatusOr<bool> RewriteReversedSub(const Node& node, GraphRewriter& rewriter) {
  const TensorType type = rewriter.graph().type(node.outputs[0]);
  const Argument alpha = IsNone(Arg(node, 2)) ? Argument(SymInt(1)) : Arg(node, 2);
  if (node.op == "aten.rsub.Tensor") {
    const ValueId result = rewriter.EmitOne(node, "aten.sub.Tensor",
                                            {Arg(node, 1), Arg(node, 0), alpha}, Contiguous(type));
    rewriter.Replace(node.outputs[0], result);
    return true;
  }
  const bool is_number = type.rank() == 0 && IsFloating(type.dtype) &&
                         SameType(rewriter.graph(), TensorArg(node, 0), node.outputs[0]);
  if (!is_number || NumberArgument(node.args, 2).value_or(1) != 1) return false;
  const ValueId negative = rewriter.EmitOne(node, "aten.neg.default", {Arg(node, 0)}, type);
  rewriter.Replace(node.outputs[0], rewriter.EmitOne(node, "aten.add.Tensor",
                                                     {negative, Arg(node, 1), SymInt(1)}, type));
  return true;
}

const RewriteTable& Rewrites() {
  static const RewriteTable& rewrites = *[] {
    auto* table = new RewriteTable{
        {"aten.to.dtype", RewriteTo},
        {"aten.to.dtype_layout", RewriteTo},
        {"aten.to.device", RewriteTo},
        {"aten.to.other", RewriteTo},
        {"aten.type_as.default", RewriteTo},
        {"aten._to_copy.default", RewriteTo},
        {"aten.add.Tensor", DropAddOfZero},
        {"aten.sub.Tensor", DropAddOfZero},
        {"aten.mul.Tensor", DropMulByOne},
        {"aten.div.Tensor", DropMulByOne},
        {"aten.view.default", DropIdentity},
        {"aten.reshape.default", DropIdentity},
        {"aten.expand.default", DropIdentity},
        {"aten.slice.Tensor", DropIdentity},
        {"aten.alias.default", DropIdentity},
        {"aten.lift_fresh_copy.default", DropIdentity},
        {"aten.repeat.default", RewriteTile},
        {"aten.repeat_interleave.self_int", RewriteRepeat},
        {"aten.tile.default", RewriteTile},
        {"aten.softmax.int", RewriteSoftmax},
        {"aten.log_softmax.int", RewriteSoftmax},
        {"aten.broadcast_tensors.default", RewriteBroadcast},
        {"aten.pad.default", RewritePad},
        {"aten.stack.default", RewriteStack},
        {"aten.cat.default", DropEmptyParts},
        {"aten.expand_as.default", RewriteExpandAs},
        {"aten.glu.default", RewriteGlu},
        {"aten.isfinite.default", RewriteIsFinite},
        {"aten.prelu.default", RewritePrelu},
        {"aten.rsub.Scalar", RewriteReversedSub},
        {"aten.rsub.Tensor", RewriteReversedSub},
    };
    table->insert(ProductRewrites().begin(), ProductRewrites().end());
    table->insert(EinsumRewrites().begin(), EinsumRewrites().end());
    table->insert(CellRewrites().begin(), CellRewrites().end());
    table->insert(LossRewrites().begin(), LossRewrites().end());
    table->insert(NormRewrites().begin(), NormRewrites().end());
    table->insert(IndexingRewrites().begin(), IndexingRewrites().end());
    table->insert(WindowRewrites().begin(), WindowRewrites().end());
    return table;
  }();
  return rewrites;
}

}  // namespace

// Gives each op one form, so that later passes and rules know one: casts, norms, softmax, the loss,
// and identities. `add` and `slice` of nothing go away.
absl::StatusOr<bool> Canonicalize(Graph& graph, const PassContext& /*context*/) {
  GraphRewriter rewriter(graph);
  for (const Node& node : rewriter.nodes()) {
    const auto rewrite = Rewrites().find(node.op);
    bool done = false;
    if (rewrite != Rewrites().end()) {
      absl::StatusOr<bool> rewritten = rewrite->second(node, rewriter);
      RETURN_IF_ERROR(rewritten.status());
      done = *rewritten;
    }
    if (!done) rewriter.Keep(node);
  }
  return rewriter.Finish();
}

}  // namespace autosp
