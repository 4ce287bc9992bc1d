#include "compiler/passes/canonicalize_losses.h"

#include "compiler/ir/argument_access.h"

namespace autosp {
namespace {

// The elementwise part of a loss is spelt out in ops that have rules and derivatives.
class Formula {
 public:
  Formula(const Node& node, GraphRewriter& rewriter)
      : node_(node), rewriter_(rewriter), type_(Contiguous(rewriter.graph().type(Self()))) {}

  ValueId Self() const { return TensorArgument(node_.args, 0); }

  ValueId Op(std::string_view op, std::vector<Argument> args) {
    return rewriter_.EmitOne(node_, op, std::move(args), type_);
  }
  ValueId Add(ValueId a, ValueId b) { return Op("aten.add.Tensor", {a, b, SymInt(1)}); }
  ValueId Sub(ValueId a, ValueId b) { return Op("aten.sub.Tensor", {a, b, SymInt(1)}); }
  ValueId Mul(ValueId a, ValueId b) { return Op("aten.mul.Tensor", {a, b}); }
  ValueId Scale(ValueId a, double factor) {
    return factor == 1.0 ? a : Op("aten.mul.Tensor", {a, factor});
  }
  ValueId Square(ValueId a) { return Op("aten.square.default", {a}); }
  ValueId Abs(ValueId a) { return Op("aten.abs.default", {a}); }
  // log(1 + exp(a)); linear above 20, where fp32 cannot tell.
  ValueId Softplus(ValueId a) { return Op("aten.softplus.default", {a, SymInt(1), SymInt(20)}); }

 private:
  const Node& node_;
  GraphRewriter& rewriter_;
  TensorType type_;
};

// Both operands of one shape: what broadcasts is left to ATen, as the op has no rule then.
bool HaveOneType(const Node& node, GraphRewriter& rewriter) {
  const ValueId a = TensorArgument(node.args, 0);
  const ValueId b = TensorArgument(node.args, 1);
  return a.valid() && b.valid() && SameType(rewriter.graph(), a, b);
}

// mse_loss(a, b, reduction): the difference, squared.
absl::StatusOr<bool> RewriteMseLoss(const Node& node, GraphRewriter& rewriter) {
  if (!HaveOneType(node, rewriter)) return false;
  Formula f(node, rewriter);
  ReplaceByReduced(node, 2, f.Square(f.Sub(f.Self(), TensorArgument(node.args, 1))), rewriter);
  return true;
}

absl::StatusOr<bool> RewriteL1Loss(const Node& node, GraphRewriter& rewriter) {
  if (!HaveOneType(node, rewriter)) return false;
  Formula f(node, rewriter);
  ReplaceByReduced(node, 2, f.Abs(f.Sub(f.Self(), TensorArgument(node.args, 1))), rewriter);
  return true;
}

// d^2 / 2 up to `delta`, delta (d - delta / 2) above it: with c = min(d, delta), c (d - c / 2).
ValueId Huber(Formula& f, ValueId a, ValueId b, double delta) {
  const ValueId distance = f.Abs(f.Sub(a, b));
  const ValueId clamped = f.Op("aten.clamp.default", {distance, None{}, delta});
  return f.Mul(clamped, f.Sub(distance, f.Scale(clamped, 0.5)));
}

// huber_loss(a, b, reduction, delta)
absl::StatusOr<bool> RewriteHuberLoss(const Node& node, GraphRewriter& rewriter) {
  if (!HaveOneType(node, rewriter)) return false;
  Formula f(node, rewriter);
  const double delta = NumberArgument(node.args, 3).value_or(1.0);
  ReplaceByReduced(node, 2, Huber(f, f.Self(), TensorArgument(node.args, 1), delta), rewriter);
  return true;
}

// smooth_l1_loss(a, b, reduction, beta): the Huber loss over beta; with beta 0 the l1 loss.
absl::StatusOr<bool> RewriteSmoothL1Loss(const Node& node, GraphRewriter& rewriter) {
  const double beta = NumberArgument(node.args, 3).value_or(1.0);
  if (beta == 0.0) return RewriteL1Loss(node, rewriter);
  if (!HaveOneType(node, rewriter)) return false;
  Formula f(node, rewriter);
  const ValueId huber = Huber(f, f.Self(), TensorArgument(node.args, 1), beta);
  ReplaceByReduced(node, 2, f.Scale(huber, 1.0 / beta), rewriter);
  return true;
}

// kl_div(x, t, reduction, log_target): t (log t - x), where t is given as it is or as its
// logarithm. Where t is 0 the first part is 0, and not 0 times -inf.
absl::StatusOr<bool> RewriteKlDiv(const Node& node, GraphRewriter& rewriter) {
  constexpr double kSmallestNormal = 1.2e-38;
  if (!HaveOneType(node, rewriter)) return false;
  Formula f(node, rewriter);
  const ValueId target = TensorArgument(node.args, 1);
  ValueId probability = target;
  ValueId log_probability = target;
  if (FlagArgument(node.args, 3).value_or(false)) {
    probability = f.Op("aten.exp.default", {target});
  } else {
    const ValueId positive = f.Op("aten.clamp_min.default", {target, kSmallestNormal});
    log_probability = f.Op("aten.log.default", {positive});
  }
  ReplaceByReduced(node, 2, f.Mul(probability, f.Sub(log_probability, f.Self())), rewriter);
  return true;
}

// binary_cross_entropy(p, t, weight, reduction): the op itself makes a loss per element, since it
// holds logarithms at -100 and the derivative's divisor at 1e-12.
absl::StatusOr<bool> RewriteProbabilityLoss(const Node& node, GraphRewriter& rewriter) {
  constexpr size_t kReduction = 3;
  const auto none = static_cast<int64_t>(LossReduction::kNone);
  if (!HaveOneType(node, rewriter) || IntegerArgument(node.args, kReduction) == none) return false;
  std::vector<Argument> args = node.args;
  args.resize(kReduction);
  args.emplace_back(SymInt(none));
  Formula f(node, rewriter);
  ReplaceByReduced(node, kReduction, f.Op(node.op, std::move(args)), rewriter);
  return true;
}

// Losses of vectors in the last dimension, which the op itself makes for each: of operands of one
// shape, and labels that have all dimensions but that.
absl::StatusOr<bool> RewriteVectorLoss(const Node& node, GraphRewriter& rewriter,
                                       size_t num_vectors, size_t reduction) {
  const auto none = static_cast<int64_t>(LossReduction::kNone);
  if (!HaveOneType(node, rewriter) || IntegerArgument(node.args, reduction) == none) return false;
  TensorType type = Contiguous(rewriter.graph().type(TensorArgument(node.args, 0)));
  if (type.rank() < 2) return false;
  if (num_vectors > 2 &&
      !SameType(rewriter.graph(), TensorArgument(node.args, 0), TensorArgument(node.args, 2))) {
    return false;
  }
  type.sizes.pop_back();
  std::vector<Argument> args = node.args;
  args.resize(reduction);
  args.emplace_back(SymInt(none));
  ReplaceByReduced(node, reduction,
                   rewriter.EmitOne(node, node.op, std::move(args), Contiguous(type)), rewriter);
  return true;
}

// cosine_embedding_loss(x1, x2, target, margin, reduction)
absl::StatusOr<bool> RewriteCosineLoss(const Node& node, GraphRewriter& rewriter) {
  return RewriteVectorLoss(node, rewriter, 2, 4);
}

// triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, reduction)
absl::StatusOr<bool> RewriteTripletLoss(const Node& node, GraphRewriter& rewriter) {
  return RewriteVectorLoss(node, rewriter, 3, 7);
}

// binary_cross_entropy_with_logits(x, t, weight, pos_weight, reduction):
//   softplus(x) - t x, or, with p = pos_weight, (1 - t) x + (1 + (p - 1) t) softplus(-x);
// times weight.
absl::StatusOr<bool> RewriteBinaryCrossEntropy(const Node& node, GraphRewriter& rewriter) {
  if (!HaveOneType(node, rewriter)) return false;
  Formula f(node, rewriter);
  const ValueId x = f.Self();
  const ValueId target = TensorArgument(node.args, 1);
  const ValueId weight = TensorArgument(node.args, 2);
  const ValueId pos_weight = TensorArgument(node.args, 3);
  ValueId loss;
  if (pos_weight.valid()) {
    const ValueId others = f.Sub(x, f.Mul(x, target));
    const ValueId added = f.Sub(f.Mul(target, pos_weight), target);
    const ValueId log_weight = f.Op("aten.add.Tensor", {added, SymInt(1), SymInt(1)});
    loss = f.Add(others, f.Mul(log_weight, f.Softplus(f.Op("aten.neg.default", {x}))));
  } else {
    loss = f.Sub(f.Softplus(x), f.Mul(x, target));
  }
  if (weight.valid()) loss = f.Mul(loss, weight);
  ReplaceByReduced(node, 4, loss, rewriter);
  return true;
}

}  // namespace

void ReplaceByReduced(const Node& node, size_t reduction_arg, ValueId loss,
                      GraphRewriter& rewriter) {
  const auto reduction =
      static_cast<LossReduction>(IntegerArgument(node.args, reduction_arg).value_or(int64_t{1}));
  const TensorType result_type = rewriter.graph().type(node.outputs[0]);
  if (reduction != LossReduction::kNone) {
    const bool is_mean = reduction == LossReduction::kMean;
    TensorType reduced{.dtype = rewriter.graph().type(loss).dtype, .sizes = {}, .strides = {}};
    loss = rewriter.EmitOne(node, is_mean ? "aten.mean.default" : "aten.sum.default",
                            {loss, None{}}, std::move(reduced));
  }
  rewriter.Replace(node.outputs[0], CastTo(node, loss, result_type.dtype, rewriter));
}

const RewriteTable& LossRewrites() {
  static const RewriteTable& rewrites = *new RewriteTable{
      {"aten.binary_cross_entropy.default", RewriteProbabilityLoss},
      {"aten.binary_cross_entropy_with_logits.default", RewriteBinaryCrossEntropy},
      {"aten.cosine_embedding_loss.default", RewriteCosineLoss},
      {"aten.cross_entropy_loss.default", RewriteCrossEntropy},
      {"aten.huber_loss.default", RewriteHuberLoss},
      {"aten.kl_div.default", RewriteKlDiv},
      {"aten.l1_loss.default", RewriteL1Loss},
      {"aten.mse_loss.default", RewriteMseLoss},
      {"aten.nll_loss.default", RewriteNllLoss},
      {"aten.nll_loss_nd.default", RewriteNllLoss},
      {"aten.smooth_l1_loss.default", RewriteSmoothL1Loss},
      {"aten.triplet_margin_loss.default", RewriteTripletLoss},
  };
  return rewrites;
}

}  // namespace autosp
