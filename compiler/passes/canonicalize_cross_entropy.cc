// Cross entropy and negative log likelihood.
//
// With class indices as target, all forms become one op over [tokens, classes], which never holds
// the probabilities; with probabilities as target, log-softmax and a product.
#include <optional>
#include <vector>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/passes/canonicalize_losses.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

struct CrossEntropy {
  ValueId logits;
  ValueId target;
  ValueId weight;  // of each class; invalid: 1
  LossReduction reduction = LossReduction::kMean;
  int64_t ignore_index = -100;
  double smoothing = 0;
};

constexpr DType kF32 = DType::kF32;

TensorType Typed(DType dtype, const std::vector<int64_t>& sizes) {
  return {.dtype = dtype,
          .sizes = std::vector<SymInt>(sizes.begin(), sizes.end()),
          .strides = ContiguousStrides(sizes)};
}

// [C], [N, C], [N, C, d1, ...]: where the classes are.
int64_t ClassDim(int64_t rank) { return rank == 1 ? 0 : 1; }

// Writes the ops of one loss in place of a node.
class CrossEntropyRewrite {
 public:
  CrossEntropyRewrite(const Node& node, const CrossEntropy& loss, GraphRewriter& rewriter)
      : node_(node), loss_(loss), rewriter_(rewriter) {
    if (loss_.weight.valid()) loss_.weight = CastTo(node_, loss_.weight, kF32, rewriter_);
  }

  void OfIndices() {
    Flatten();
    std::vector<Argument> args = {loss_.logits, loss_.target, SymInt(loss_.ignore_index)};
    if (loss_.weight.valid() || loss_.smoothing != 0) {
      args.push_back(loss_.weight.valid() ? Argument(loss_.weight) : Argument(None{}));
      args.push_back(loss_.smoothing);
    }
    const TensorType scalar = Typed(kF32, {});
    const TensorType per_token = Typed(kF32, {num_tokens_});
    if (loss_.reduction == LossReduction::kNone) {
      const ValueId losses =
          rewriter_.Emit(node_, "autosp.cross_entropy", std::move(args), {per_token, per_token})[0];
      return ReplaceByTokens(losses);
    }
    const ValueId sum = rewriter_.Emit(node_, "autosp.cross_entropy_sum", std::move(args),
                                       {scalar, scalar, per_token})[0];
    ReplaceByNumber(loss_.reduction == LossReduction::kSum
                        ? sum
                        : rewriter_.EmitOne(node_, "aten.div.Tensor", {sum, Divisor()}, scalar));
  }

  // Minus what is at the target of logarithms that no log-softmax is known to have made: 0 where
  // the target is ignored. A class that does not exist is refused where it is looked up.
  void OfLogProbabilities() {
    Flatten();
    const TensorType per_token = Typed(rewriter_.graph().type(loss_.logits).dtype, {num_tokens_});
    const ValueId is_valid = IsValid();
    TensorType type = Contiguous(rewriter_.graph().type(loss_.target));
    const ValueId target = rewriter_.EmitOne(node_, "aten.where.ScalarOther",
                                             {is_valid, loss_.target, SymInt(0)}, type);
    const ValueId chosen =
        rewriter_.EmitOne(node_, "aten.gather.default",
                          {loss_.logits, SymInt(1), View(target, {num_tokens_, 1}), false},
                          Typed(per_token.dtype, {num_tokens_, 1}));
    ValueId losses =
        rewriter_.EmitOne(node_, "aten.neg.default", {View(chosen, {num_tokens_})}, per_token);
    if (loss_.weight.valid()) {
      const ValueId weights =
          rewriter_.EmitOne(node_, "aten.index.Tensor", {loss_.weight, ValueList{target}},
                            Typed(kF32, {num_tokens_}));
      losses = rewriter_.EmitOne(node_, "aten.mul.Tensor", {losses, weights},
                                 Typed(kF32, {num_tokens_}));
    }
    losses = rewriter_.EmitOne(node_, "aten.where.ScalarOther", {is_valid, losses, 0.0},
                               rewriter_.graph().type(losses));
    if (loss_.reduction == LossReduction::kNone) return ReplaceByTokens(losses);
    const ValueId sum =
        rewriter_.EmitOne(node_, "aten.sum.default",
                          {CastTo(node_, losses, kF32, rewriter_), None{}}, Typed(kF32, {}));
    ReplaceByNumber(
        loss_.reduction == LossReduction::kSum
            ? sum
            : rewriter_.EmitOne(node_, "aten.div.Tensor", {sum, Divisor()}, Typed(kF32, {})));
  }

  // - sum over classes of target x log-softmax, smoothed and weighted.
  void OfProbabilities() {
    const ValueId logits = CastTo(node_, loss_.logits, kF32, rewriter_);
    const TensorType type = Contiguous(rewriter_.graph().type(logits));
    const int64_t dim = ClassDim(type.rank());
    const int64_t num_classes = type.sizes[dim].value;
    ValueId product =
        rewriter_.EmitOne(node_, "aten._log_softmax.default", {logits, SymInt(dim), false}, type);
    ValueId target = CastTo(node_, loss_.target, kF32, rewriter_);
    if (loss_.smoothing != 0) {
      target = rewriter_.EmitOne(node_, "aten.mul.Tensor", {target, 1 - loss_.smoothing}, type);
      target = rewriter_.EmitOne(
          node_, "aten.add.Tensor",
          {target, loss_.smoothing / static_cast<double>(num_classes), SymInt(1)}, type);
    }
    product = rewriter_.EmitOne(node_, "aten.mul.Tensor", {product, target}, type);
    if (loss_.weight.valid()) {
      std::vector<int64_t> sizes(type.rank() - dim, 1);
      sizes[0] = num_classes;
      product =
          rewriter_.EmitOne(node_, "aten.mul.Tensor", {product, View(loss_.weight, sizes)}, type);
    }
    TensorType reduced = type;
    reduced.sizes.erase(reduced.sizes.begin() + dim);
    reduced = Contiguous(reduced);
    product = rewriter_.EmitOne(node_, "aten.sum.dim_IntList",
                                {product, IntList{SymInt(dim)}, false, None{}}, reduced);
    ReplaceByReduced(node_, 3, rewriter_.EmitOne(node_, "aten.neg.default", {product}, reduced),
                     rewriter_);
  }

 private:
  ValueId View(ValueId value, const std::vector<int64_t>& sizes) {
    if (Values(rewriter_.graph().type(value).sizes) == sizes) return value;
    const TensorType type = Typed(rewriter_.graph().type(value).dtype, sizes);
    return rewriter_.EmitOne(node_, "aten.reshape.default", {value, IntList(type.sizes)}, type);
  }

  // Logits as [T, C], the target as [T].
  void Flatten() {
    const TensorType type = rewriter_.graph().type(loss_.logits);
    const int64_t dim = ClassDim(type.rank());
    const int64_t num_classes = type.sizes[dim].value;
    num_tokens_ = 1;
    for (int64_t i = 0; i < type.rank(); ++i) num_tokens_ *= i == dim ? 1 : type.sizes[i].value;
    if (type.rank() == 2) return;
    if (type.rank() > 2) {
      IntList order;
      TensorType permuted{.dtype = type.dtype, .sizes = {}, .strides = {}};
      for (int64_t i = 0; i < type.rank(); ++i) {
        if (i != dim) order.push_back(SymInt(i));
      }
      order.push_back(SymInt(dim));
      for (const SymInt& from : order) {
        permuted.sizes.push_back(type.sizes[from.value]);
        permuted.strides.push_back(type.strides[from.value]);
      }
      loss_.logits =
          rewriter_.EmitOne(node_, "aten.permute.default", {loss_.logits, order}, permuted);
    }
    loss_.logits = View(loss_.logits, {num_tokens_, num_classes});
    loss_.target = View(loss_.target, {num_tokens_});
  }

  void ReplaceByTokens(ValueId losses) {
    const TensorType type = rewriter_.graph().type(node_.outputs[0]);
    losses = CastTo(node_, losses, type.dtype, rewriter_);
    if (type.rank() != 1) losses = View(losses, Values(type.sizes));
    rewriter_.Replace(node_.outputs[0], losses);
  }

  // The loss of logits in a half type is rounded to it.
  void ReplaceByNumber(ValueId loss) {
    const DType dtype = rewriter_.graph().type(node_.outputs[0]).dtype;
    rewriter_.Replace(node_.outputs[0], CastTo(node_, loss, dtype, rewriter_));
  }

  // Which targets are not ignored.
  ValueId IsValid() {
    TensorType type = Contiguous(rewriter_.graph().type(loss_.target));
    type.dtype = DType::kBool;
    const SymInt ignore_index(loss_.ignore_index);
    return rewriter_.EmitOne(node_, "aten.ne.Scalar", {loss_.target, ignore_index}, type);
  }

  // What a mean divides by: the number of valid tokens, or the sum of their classes' weights. Found
  // apart from the sum, from the target alone: it is known of all micro-steps before the first one.
  ValueId Divisor() {
    const ValueId is_valid = IsValid();
    TensorType type = Contiguous(rewriter_.graph().type(loss_.target));
    const TensorType scalar = Typed(kF32, {});
    if (!loss_.weight.valid()) {
      const ValueId count =
          rewriter_.EmitOne(node_, "aten.sum.default", {is_valid, None{}}, Typed(DType::kI64, {}));
      return CastTo(node_, count, kF32, rewriter_);
    }
    // Ignored tokens look up any class, and count nothing. Classes that do not exist are refused by
    // the op that looks at the logits.
    const int64_t num_classes = rewriter_.graph().type(loss_.weight).sizes[0].value;
    type.dtype = DType::kI64;
    const ValueId index = rewriter_.EmitOne(
        node_, "aten.clamp.default", {loss_.target, SymInt(0), SymInt(num_classes - 1)}, type);
    type.dtype = kF32;
    ValueId weights =
        rewriter_.EmitOne(node_, "aten.index.Tensor", {loss_.weight, ValueList{index}}, type);
    weights = rewriter_.EmitOne(node_, "aten.where.ScalarOther", {is_valid, weights, 0.0}, type);
    return rewriter_.EmitOne(node_, "aten.sum.default", {weights, None{}}, scalar);
  }

  const Node& node_;
  CrossEntropy loss_;
  GraphRewriter& rewriter_;
  int64_t num_tokens_ = 1;
};

LossReduction ReductionOf(const Node& node) {
  return static_cast<LossReduction>(IntegerArgument(node.args, 3).value_or(1));
}

const Node* DefinerOf(ValueId value, const GraphRewriter& rewriter) {
  for (const Node& node : rewriter.nodes()) {
    for (ValueId output : node.outputs) {
      if (output == value) return &node;
    }
  }
  return nullptr;
}

// Where dimension `dim` of what a view of rows of classes, or another order of dimensions, shows
// stands in what it is a view of. None: no such view, or it mixes the classes with others.
std::optional<int64_t> DimOfSource(const Graph& graph, const Node& view, int64_t dim) {
  const TensorType& type = graph.type(view.outputs[0]);
  const OpContext context(graph, view);
  if (view.op == "aten.transpose.int") {
    const int64_t a = context.Dim(1, type.rank());
    const int64_t b = context.Dim(2, type.rank());
    return dim == a ? b : dim == b ? a : dim;
  }
  if (view.op == "aten.t.default" && type.rank() == 2) return 1 - dim;
  if (view.op == "aten.permute.default") return context.DimList(1, type.rank())[dim];
  const bool is_view = view.op == "aten.view.default" || view.op == "aten.reshape.default" ||
                       view.op == "aten.flatten.using_ints";
  const TensorType& source = graph.type(OperandsOf(view)[0]);
  const bool keeps_rows = is_view && dim + 1 == type.rank() && source.rank() > 0 &&
                          source.sizes.back().value == type.sizes.back().value;
  if (!keeps_rows) return std::nullopt;
  return source.rank() - 1;
}

// The logits of a log-softmax over dimension `dim` that gave `log_probs`, also where that was
// viewed as rows of classes, or transposed, afterwards: the same views of the logits.
std::optional<ValueId> LogitsOf(const Node& loss, ValueId log_probs, int64_t dim,
                                GraphRewriter& rewriter) {
  const Node* node = DefinerOf(log_probs, rewriter);
  if (node == nullptr) return std::nullopt;
  const Graph& graph = rewriter.graph();
  if (node->op == "aten.log_softmax.int" || node->op == "aten._log_softmax.default") {
    const ValueId logits = TensorArgument(node->args, 0);
    const int64_t rank = graph.type(logits).rank();
    const int64_t over = IntegerArgument(node->args, 1).value_or(-1);
    if ((over < 0 ? over + rank : over) != dim) return std::nullopt;
    return CastTo(loss, logits, graph.type(log_probs).dtype, rewriter);
  }
  if (OperandsOf(*node).size() != 1) return std::nullopt;
  const std::optional<int64_t> from = DimOfSource(graph, *node, dim);
  if (!from) return std::nullopt;
  const std::optional<ValueId> logits = LogitsOf(loss, OperandsOf(*node)[0], *from, rewriter);
  if (!logits) return std::nullopt;
  const TensorType type = graph.type(log_probs);
  if (node->op == "aten.transpose.int" || node->op == "aten.t.default" ||
      node->op == "aten.permute.default") {
    std::vector<Argument> args = node->args;
    args[0] = *logits;
    return rewriter.EmitOne(loss, node->op, std::move(args), type);
  }
  return rewriter.EmitOne(loss, "aten.reshape.default", {*logits, IntList(type.sizes)},
                          Contiguous(type));
}

}  // namespace

// cross_entropy_loss(logits, target, weight, reduction, ignore_index, label_smoothing)
absl::StatusOr<bool> RewriteCrossEntropy(const Node& node, GraphRewriter& rewriter) {
  const CrossEntropy loss{.logits = TensorArgument(node.args, 0),
                          .target = TensorArgument(node.args, 1),
                          .weight = TensorArgument(node.args, 2),
                          .reduction = ReductionOf(node),
                          .ignore_index = IntegerArgument(node.args, 4).value_or(-100),
                          .smoothing = NumberArgument(node.args, 5).value_or(0)};
  const bool has_probabilities = IsFloating(rewriter.graph().type(loss.target).dtype);
  CrossEntropyRewrite rewrite(node, loss, rewriter);
  has_probabilities ? rewrite.OfProbabilities() : rewrite.OfIndices();
  return true;
}

// nll_loss(log_probs, target, weight, reduction, ignore_index), nll_loss_nd: of a log-softmax it is
// the cross entropy of what that was given, of other logarithms what stands at the targets.
absl::StatusOr<bool> RewriteNllLoss(const Node& node, GraphRewriter& rewriter) {
  const ValueId log_probs = TensorArgument(node.args, 0);
  const int64_t dim = ClassDim(rewriter.graph().type(log_probs).rank());
  const std::optional<ValueId> logits = LogitsOf(node, log_probs, dim, rewriter);
  CrossEntropyRewrite rewrite(node,
                              {.logits = logits.value_or(log_probs),
                               .target = TensorArgument(node.args, 1),
                               .weight = TensorArgument(node.args, 2),
                               .reduction = ReductionOf(node),
                               .ignore_index = IntegerArgument(node.args, 4).value_or(-100),
                               .smoothing = 0},
                              rewriter);
  logits ? rewrite.OfIndices() : rewrite.OfLogProbabilities();
  return true;
}

}  // namespace autosp
