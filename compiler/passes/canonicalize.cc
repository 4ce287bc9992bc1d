#include <functional>
#include <map>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/text_cursor.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

// Rewrites one node, or returns false to keep it.
using Rewrite = absl::StatusOr<bool> (*)(const Node& node, GraphRewriter& rewriter);

const Argument& Arg(const Node& node, size_t index) {
  static const Argument& none = *new Argument(None{});
  return index < node.args.size() ? node.args[index] : none;
}

ValueId TensorArg(const Node& node, size_t index) {
  const auto* id = std::get_if<ValueId>(&Arg(node, index));
  return id ? *id : ValueId{};
}

// Whether a literal (int, float or bool) equals `value`.
bool IsLiteral(const Argument& argument, double value) {
  if (const auto* i = std::get_if<SymInt>(&argument)) {
    return i->expr.empty() && static_cast<double>(i->value) == value;
  }
  if (const auto* d = std::get_if<double>(&argument)) return *d == value;
  return false;
}

bool SameType(const Graph& graph, ValueId a, ValueId b) {
  return graph.type(a).dtype == graph.type(b).dtype &&
         Values(graph.type(a).sizes) == Values(graph.type(b).sizes);
}

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
  if (!IsLiteral(Arg(node, 1), 0.0)) return false;
  return DropIdentity(node, rewriter);
}

absl::StatusOr<bool> DropMulByOne(const Node& node, GraphRewriter& rewriter) {
  if (!IsLiteral(Arg(node, 1), 1.0)) return false;
  return DropIdentity(node, rewriter);
}

absl::StatusOr<bool> RewriteLayerNorm(const Node& node, GraphRewriter& rewriter) {
  const Graph& graph = rewriter.graph();
  const TensorType type = graph.type(node.outputs[0]);
  TensorType statistics = type;
  const auto* shape = std::get_if<IntList>(&Arg(node, 1));
  if (shape == nullptr) return false;
  for (size_t i = 0; i < shape->size(); ++i) {
    statistics.sizes[statistics.sizes.size() - 1 - i] = 1;
  }
  const ValueId weight = TensorArg(node, 2);
  if (weight.valid()) statistics.dtype = PromoteTypes(type.dtype, graph.type(weight).dtype);
  statistics = Contiguous(statistics);
  const std::vector<ValueId> results =
      rewriter.Emit(node, "aten.native_layer_norm.default",
                    {Arg(node, 0), Arg(node, 1), Arg(node, 2), Arg(node, 3), Arg(node, 4)},
                    {Contiguous(type), statistics, statistics});
  rewriter.Replace(node.outputs[0], results[0]);
  return true;
}

// softmax(x, dim, dtype?) -> _softmax(x.to(dtype), dim, false), whose derivative keeps its result.
absl::StatusOr<bool> RewriteSoftmax(const Node& node, GraphRewriter& rewriter) {
  const TensorType type = rewriter.graph().type(node.outputs[0]);
  ValueId input = TensorArg(node, 0);
  if (rewriter.graph().type(input).dtype != type.dtype) {
    TensorType cast = rewriter.graph().type(input);
    cast.dtype = type.dtype;
    input =
        rewriter.EmitOne(node, "aten.to.dtype", {input, type.dtype, false, false, None{}}, cast);
  }
  const std::string_view op =
      node.op == "aten.softmax.int" ? "aten._softmax.default" : "aten._log_softmax.default";
  const ValueId result = rewriter.EmitOne(node, op, {input, Arg(node, 1), false}, Contiguous(type));
  rewriter.Replace(node.outputs[0], result);
  return true;
}

absl::Status CheckCrossEntropy(const Node& node, const Graph& graph) {
  if (TensorArg(node, 2).valid()) {
    return Unimplemented(Describe(graph, node),
                         ": class weights are not supported yet; drop the weight argument");
  }
  if (!IsNone(Arg(node, 5)) && !IsLiteral(Arg(node, 5), 0.0)) {
    return Unimplemented(Describe(graph, node),
                         ": label_smoothing is not supported yet; set it to 0");
  }
  if (IsFloating(graph.type(TensorArg(node, 1)).dtype)) {
    return Unimplemented(
        Describe(graph, node),
        ": class probabilities as target are not supported yet; use class indices");
  }
  return absl::OkStatus();
}

// cross_entropy_loss -> the sum over valid tokens and their number, both of which add up over
// shards; the mean is their quotient.
absl::StatusOr<bool> RewriteCrossEntropy(const Node& node, GraphRewriter& rewriter) {
  const Graph& graph = rewriter.graph();
  RETURN_IF_ERROR(CheckCrossEntropy(node, graph));
  int64_t reduction = 1;
  if (const auto* value = std::get_if<SymInt>(&Arg(node, 3))) reduction = value->value;
  if (reduction == 0) {
    return Unimplemented(Describe(graph, node),
                         ": reduction none is not supported yet; use mean or sum");
  }
  const TensorType& logits = graph.type(TensorArg(node, 0));
  if (logits.rank() != 2) {
    return Unimplemented(Describe(graph, node), ": logits with ", logits.rank(),
                         " dimensions are not supported yet; view them as [tokens, classes]");
  }
  Argument ignore_index = Arg(node, 4);
  if (IsNone(ignore_index)) ignore_index = SymInt(-100);
  const TensorType scalar{.dtype = DType::kF32, .sizes = {}, .strides = {}};
  const TensorType per_token{.dtype = DType::kF32, .sizes = {logits.sizes[0]}, .strides = {1}};
  const std::vector<ValueId> sums =
      rewriter.Emit(node, "autosp.cross_entropy_sum", {Arg(node, 0), Arg(node, 1), ignore_index},
                    {scalar, scalar, per_token});
  ValueId loss = sums[0];
  if (reduction == 1) {
    // Counted apart from the sum, from the target alone: the number of valid tokens of all
    // micro-steps is known before the first one.
    const ValueId target = TensorArg(node, 1);
    TensorType type = graph.type(target);
    type.dtype = DType::kBool;
    const ValueId is_valid = rewriter.EmitOne(node, "aten.ne.Scalar", {target, ignore_index}, type);
    TensorType count_type = scalar;
    count_type.dtype = DType::kI64;
    const ValueId count =
        rewriter.EmitOne(node, "aten.sum.default", {is_valid, None{}}, count_type);
    const ValueId divisor =
        rewriter.EmitOne(node, "aten.to.dtype", {count, DType::kF32, false, false, None{}}, scalar);
    loss = rewriter.EmitOne(node, "aten.div.Tensor", {sums[0], divisor}, scalar);
  }
  rewriter.Replace(node.outputs[0], loss);
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

// mse_loss(a, b, reduction): a difference, squared, and its mean or sum.
absl::StatusOr<bool> RewriteMseLoss(const Node& node, GraphRewriter& rewriter) {
  const auto* reduction = std::get_if<SymInt>(&Arg(node, 2));
  const TensorType result_type = rewriter.graph().type(node.outputs[0]);
  const ValueId a = TensorArg(node, 0);
  const ValueId b = TensorArg(node, 1);
  if (!SameType(rewriter.graph(), a, b)) return false;
  const TensorType type = Contiguous(rewriter.graph().type(a));
  const ValueId difference = rewriter.EmitOne(node, "aten.sub.Tensor", {a, b, SymInt(1)}, type);
  ValueId loss = rewriter.EmitOne(node, "aten.square.default", {difference}, type);
  const int64_t kind = reduction != nullptr ? reduction->value : 1;
  if (kind != 0) {
    const std::string_view op = kind == 1 ? "aten.mean.default" : "aten.sum.default";
    loss = rewriter.EmitOne(node, op, {loss, None{}}, result_type);
  }
  rewriter.Replace(node.outputs[0], loss);
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

absl::StatusOr<bool> RenameToMatmul(const Node& node, GraphRewriter& rewriter) {
  const ValueId result = rewriter.EmitOne(node, "aten.matmul.default", {Arg(node, 0), Arg(node, 1)},
                                          rewriter.graph().type(node.outputs[0]));
  rewriter.Replace(node.outputs[0], result);
  return true;
}

const std::map<std::string_view, Rewrite>& Rewrites() {
  static const auto& rewrites = *new std::map<std::string_view, Rewrite>{
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
      {"aten.layer_norm.default", RewriteLayerNorm},
      {"aten.softmax.int", RewriteSoftmax},
      {"aten.log_softmax.int", RewriteSoftmax},
      {"aten.cross_entropy_loss.default", RewriteCrossEntropy},
      {"aten.broadcast_tensors.default", RewriteBroadcast},
      {"aten.mse_loss.default", RewriteMseLoss},
      {"aten.pad.default", RewritePad},
      {"aten.mm.default", RenameToMatmul},
      {"aten.bmm.default", RenameToMatmul},
  };
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
