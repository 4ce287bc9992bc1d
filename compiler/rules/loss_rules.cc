// Losses, as users' graphs have them and as canonicalisation leaves them.
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/rules/op_rule.h"
#include "compiler/rules/op_workspace.h"

namespace autosp {
namespace {

constexpr int64_t kNone = 0;
constexpr int64_t kSum = 2;

// Of a mean no part can be taken: everything is whole. Canonicalisation leaves no such loss of one
// number.
absl::StatusOr<OpFactors> WholeLoss(OpContext& context, FactorDims result) {
  OpFactors factors{.results = {std::move(result)}};
  for (ValueId operand : OperandsOf(context.node())) {
    for (const FactorDim& dim : context.Factors(operand)) AppendFactors(dim, &factors.whole);
  }
  return factors;
}

// One loss for each of `dims`, or what those add up to.
absl::StatusOr<OpFactors> ReducedLoss(OpContext& context, FactorDims dims, size_t reduction_arg) {
  const std::optional<int64_t> reduction = context.Int(reduction_arg);
  if (reduction == kNone) return OpFactors{.results = {std::move(dims)}};
  if (reduction != kSum) return WholeLoss(context, {});
  OpFactors factors{.results = {{}}};
  for (const FactorDim& dim : dims) AppendFactors(dim, &factors.sum);
  return factors;
}

// mse_loss and its like: a scalar, or one loss per element.
absl::StatusOr<OpFactors> InferElementLoss(OpContext& context) {
  const bool has_weights = context.node().op == "aten.binary_cross_entropy.default";
  const bool has_two = context.node().op == "aten.binary_cross_entropy_with_logits.default";
  ASSIGN_OR_RETURN(FactorDims dims, BroadcastFactors(context, OperandsOf(context.node())));
  return ReducedLoss(context, std::move(dims), has_two ? 4 : has_weights ? 3 : 2);
}

// Of what operands have in common: `dim` is whole, and gone or of size 1 afterwards.
absl::StatusOr<OpFactors> CompareVectors(OpContext& context, const std::vector<ValueId>& vectors,
                                         size_t dim_arg, int64_t absent, bool keep) {
  ASSIGN_OR_RETURN(FactorDims dims, BroadcastFactors(context, vectors));
  const auto rank = static_cast<int64_t>(dims.size());
  if (rank == 0) return InferOpaque(context);
  const int64_t dim = context.Dim(dim_arg, rank, absent);
  OpFactors factors;
  AppendFactors(dims[dim], &factors.whole);
  if (keep) {
    dims[dim] = {};
  } else {
    dims.erase(dims.begin() + dim);
  }
  factors.results = {std::move(dims)};
  return factors;
}

// cosine_similarity(x1, x2, dim, eps)
absl::StatusOr<OpFactors> InferCosineSimilarity(OpContext& context) {
  return CompareVectors(context, {context.Tensor(0), context.Tensor(1)}, 2, 1, false);
}

constexpr size_t kNoArgument = 99;

// pairwise_distance(x1, x2, p, eps, keepdim): of vectors in the last dimension.
absl::StatusOr<OpFactors> InferPairwiseDistance(OpContext& context) {
  return CompareVectors(context, {context.Tensor(0), context.Tensor(1)}, kNoArgument, -1,
                        context.Bool(4).value_or(false));
}

// A mean of what is stretched, which canonicalisation leaves. A sum may be divided by a number that
// was made of sizes, which nobody looks for.
absl::StatusOr<OpFactors> InferReducedVectors(OpContext& context, size_t reduction_arg) {
  constexpr int64_t kMean = 1;
  const bool is_mean = IntegerArgument(context.node().args, reduction_arg) == kMean;
  return is_mean ? WholeLoss(context, {}) : InferOpaque(context);
}

// cosine_embedding_loss(x1, x2, target, margin, reduction), triplet_margin_loss(anchor, positive,
// negative, margin, p, eps, swap, reduction): one loss for each vector in the last dimension, what
// canonicalisation makes of means and sums.
absl::StatusOr<OpFactors> InferCosineLoss(OpContext& context) {
  if (IntegerArgument(context.node().args, 4) != 0) return InferReducedVectors(context, 4);
  const FactorDims& target = context.Factors(context.Tensor(2));
  ASSIGN_OR_RETURN(
      OpFactors factors,
      CompareVectors(context, {context.Tensor(0), context.Tensor(1)}, kNoArgument, -1, false));
  const FactorDims& result = factors.results[0];
  if (result.size() != target.size()) return InferOpaque(context);
  for (size_t i = 0; i < target.size(); ++i) {
    if (context.table().Size(target[i]) == 1) continue;  // one label for all
    if (context.table().Size(result[i]) == 1) return InferOpaque(context);
    RETURN_IF_ERROR(context.table().Unify(result[i], target[i]));
  }
  return factors;
}
absl::StatusOr<OpFactors> InferTripletLoss(OpContext& context) {
  if (IntegerArgument(context.node().args, 7) != 0) return InferReducedVectors(context, 7);
  return CompareVectors(context, {context.Tensor(0), context.Tensor(1), context.Tensor(2)},
                        kNoArgument, -1, false);
}

// Logits [C], [N, C] or [N, C, d1, ...]; the target has the same dimensions, if it is one of class
// indices without that of the classes. The result has those of the tokens, or none.
absl::StatusOr<OpFactors> InferClassLoss(OpContext& context) {
  FactorDims tokens = context.Factors(context.Tensor(0));
  const FactorDims& target = context.Factors(context.Tensor(1));
  const size_t class_dim = tokens.size() == 1 ? 0 : 1;
  const bool has_classes = target.size() == tokens.size();
  if (tokens.empty() || (!has_classes && target.size() + 1 != tokens.size())) {
    return InvalidArgument("a loss of logits with ", tokens.size(), " and a target with ",
                           target.size(),
                           " dimensions is not known; give one target per row of "
                           "logits, or probabilities of the logits' shape");
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i == class_dim && !has_classes) continue;
    const size_t other = has_classes || i < class_dim ? i : i - 1;
    RETURN_IF_ERROR(context.table().Unify(tokens[i], target[other]));
  }
  const FactorDim classes = tokens[class_dim];
  tokens.erase(tokens.begin() + static_cast<int64_t>(class_dim));
  ASSIGN_OR_RETURN(OpFactors factors, ReducedLoss(context, std::move(tokens), 3));
  AppendFactors(classes, &factors.whole);
  return factors;
}

// logits [T, V], target [T], weight [V]? -> what is summed over tokens, or has one per token.
absl::StatusOr<OpFactors> InferTokens(OpContext& context, bool is_sum) {
  const FactorDims& logits = context.Factors(context.Tensor(0));
  const FactorDims& target = context.Factors(context.Tensor(1));
  if (logits.size() != 2 || target.size() != 1) {
    return Internal("cross entropy of logits with ", logits.size(), " and a target with ",
                    target.size(), " dimensions");
  }
  RETURN_IF_ERROR(context.table().Unify(logits[0], target[0]));
  if (const ValueId weight = context.Tensor(3); weight.valid()) {
    RETURN_IF_ERROR(context.table().Unify(logits[1], context.Factors(weight)[0]));
  }
  OpFactors factors;
  factors.results.assign(context.node().outputs.size(),
                         is_sum ? FactorDims{} : FactorDims{logits[0]});
  factors.results.back() = {logits[0]};  // log-sum-exp per token
  AppendFactors(logits[1], &factors.whole);
  if (is_sum) AppendFactors(logits[0], &factors.sum);
  return factors;
}

absl::StatusOr<OpFactors> InferCrossEntropySum(OpContext& context) {
  return InferTokens(context, /*is_sum=*/true);
}
absl::StatusOr<OpFactors> InferCrossEntropy(OpContext& context) {
  return InferTokens(context, /*is_sum=*/false);
}

constexpr ResultLayout kContiguous = ResultLayout::kContiguous;

}  // namespace

std::vector<OpRule> LossRules() {
  return {
      {.op = "aten.binary_cross_entropy.default",
       .infer = InferElementLoss,
       .layout = ResultLayout::kElementwise},
      {"aten.binary_cross_entropy_with_logits.default", InferElementLoss},
      // Composite, as the other three of vectors: the tape keeps what is between.
      {"aten.cosine_embedding_loss.default", InferCosineLoss},
      {"aten.cosine_similarity.default", InferCosineSimilarity},
      {"aten.cross_entropy_loss.default", InferClassLoss},
      With(ElementLossWorkspace, {"aten.huber_loss.default", InferElementLoss}),
      {"aten.kl_div.default", InferElementLoss},
      {"aten.l1_loss.default", InferElementLoss},
      With(ElementLossWorkspace, {"aten.mse_loss.default", InferElementLoss}),
      {"aten.nll_loss.default", InferClassLoss},
      {"aten.nll_loss_nd.default", InferClassLoss},
      {"aten.pairwise_distance.default", InferPairwiseDistance},
      With(ElementLossWorkspace, {"aten.smooth_l1_loss.default", InferElementLoss}),
      {"aten.triplet_margin_loss.default", InferTripletLoss},
      {"autosp.cross_entropy", InferCrossEntropy, kContiguous, Derivative::kExplicit},
      {"autosp.cross_entropy_sum", InferCrossEntropySum, kContiguous, Derivative::kExplicit},
  };
}

}  // namespace autosp
