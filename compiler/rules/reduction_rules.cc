// Reductions, norms and scans over dimensions.
#include <algorithm>

#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/rules/op_rule.h"
#include "compiler/rules/op_workspace.h"

namespace autosp {
namespace {

enum class Kind { kSum, kMax, kWhole };

// `keep`: whether reduced dimensions stay, with size 1.
OpFactors ReduceOver(const OpContext& context, Kind kind, const std::vector<int64_t>& reduced,
                     bool keep) {
  const FactorDims& from = context.Factors(context.Tensor(0));
  OpFactors factors;
  FactorDims dims;
  for (int64_t i = 0; i < static_cast<int64_t>(from.size()); ++i) {
    if (std::ranges::count(reduced, i) == 0) {
      dims.push_back(from[i]);
      continue;
    }
    AppendFactors(from[i], kind == Kind::kSum   ? &factors.sum
                           : kind == Kind::kMax ? &factors.max
                                                : &factors.whole);
    if (keep) dims.push_back({});
  }
  factors.results.assign(context.node().outputs.size(), dims);
  return factors;
}

// `keep_arg`: where the op says so.
absl::StatusOr<OpFactors> Reduce(OpContext& context, Kind kind, bool has_dims, size_t dims_arg = 1,
                                 size_t keep_arg = 2) {
  const int64_t rank = context.Rank(context.Tensor(0));
  return ReduceOver(context, kind,
                    context.DimList(has_dims ? dims_arg : context.node().args.size(), rank),
                    has_dims && context.Bool(keep_arg).value_or(false));
}

absl::StatusOr<OpFactors> InferSumDims(OpContext& context) {
  return Reduce(context, Kind::kSum, true);
}
absl::StatusOr<OpFactors> InferSumAll(OpContext& context) {
  return Reduce(context, Kind::kSum, false);
}
absl::StatusOr<OpFactors> InferMaxDims(OpContext& context) {
  return Reduce(context, Kind::kMax, true);
}
absl::StatusOr<OpFactors> InferWholeDims(OpContext& context) {
  return Reduce(context, Kind::kWhole, true);
}
absl::StatusOr<OpFactors> InferWholeAll(OpContext& context) {
  return Reduce(context, Kind::kWhole, false);
}

// var(self, dim, correction, keepdim)
absl::StatusOr<OpFactors> InferVariance(OpContext& context) {
  return Reduce(context, Kind::kWhole, true, 1, 3);
}
// linalg_vector_norm(self, ord, dim, keepdim, dtype)
absl::StatusOr<OpFactors> InferVectorNorm(OpContext& context) {
  return Reduce(context, Kind::kWhole, true, 2, 3);
}

// quantile(self, q, dim, keepdim)
absl::StatusOr<OpFactors> InferQuantile(OpContext& context) {
  return Reduce(context, Kind::kWhole, true, 2, 3);
}

// median(self, dim, keepdim), and mode(self, dim, keepdim), over the last dimension where none is
// named. kthvalue(self, k, dim, keepdim): k may be a number made of a size that follows the job.
absl::StatusOr<OpFactors> InferMode(OpContext& context) {
  if (context.Rank(context.Tensor(0)) == 0) return InferOpaque(context);
  return ReduceOver(context, Kind::kWhole, {context.Dim(1, context.Rank(context.Tensor(0)), -1)},
                    context.Bool(2).value_or(false));
}
absl::StatusOr<OpFactors> InferKthValue(OpContext& context) {
  const FactorDims& from = context.Factors(context.Tensor(0));
  if (from.empty()) return InferOpaque(context);
  const int64_t dim = context.Dim(2, static_cast<int64_t>(from.size()), -1);
  if (context.table().FollowsRoot(from[dim])) return InferOpaque(context);
  return ReduceOver(context, Kind::kWhole, {dim}, context.Bool(3).value_or(false));
}

// softmax, cumsum, sort: a dimension is whole, the shape stays.
absl::StatusOr<OpFactors> AlongDim(OpContext& context, size_t dim_arg, int64_t absent) {
  const FactorDims& dims = context.Factors(context.Tensor(0));
  OpFactors factors;
  factors.results.assign(context.node().outputs.size(), dims);
  const auto rank = static_cast<int64_t>(dims.size());
  if (rank > 0) AppendFactors(dims[context.Dim(dim_arg, rank, absent)], &factors.whole);
  return factors;
}
absl::StatusOr<OpFactors> InferAlongDim(OpContext& context) { return AlongDim(context, 1, 0); }
absl::StatusOr<OpFactors> InferSort(OpContext& context) { return AlongDim(context, 1, -1); }
absl::StatusOr<OpFactors> InferStableSort(OpContext& context) { return AlongDim(context, 2, -1); }

// topk(self, k, dim): the dimension is whole, and another one afterwards.
absl::StatusOr<OpFactors> InferTopK(OpContext& context) {
  FactorDims dims = context.Factors(context.Tensor(0));
  if (dims.empty()) return InferOpaque(context);
  OpFactors factors;
  FactorDim& dim = dims[context.Dim(2, static_cast<int64_t>(dims.size()), -1)];
  AppendFactors(dim, &factors.whole);
  dim = FactorOfSize(context, context.Sym(1).value_or(SymInt(0)));
  AppendFactors(dim, &factors.whole);
  factors.results.assign(context.node().outputs.size(), dims);
  return factors;
}

// tril, triu: which elements stay depends on both of the last two indices; argument 1 is a
// diagonal.
absl::StatusOr<OpFactors> InferTriangle(OpContext& context) {
  OpFactors factors{.results = {context.Factors(context.Tensor(0))}};
  const FactorDims& dims = factors.results[0];
  for (size_t i = dims.size() - std::min<size_t>(dims.size(), 2); i < dims.size(); ++i) {
    AppendFactors(dims[i], &factors.whole);
  }
  return factors;
}

// native_layer_norm(input, normalized_shape, weight, bias, eps) -> out, mean, rstd
absl::StatusOr<OpFactors> InferLayerNorm(OpContext& context) {
  const ValueId self = context.Tensor(0);
  const FactorDims& from = context.Factors(self);
  const size_t normalized = context.Ints(1).size();
  const size_t kept = from.size() - normalized;
  OpFactors factors{.results = {from}};
  FactorDims statistics = from;
  for (size_t i = kept; i < from.size(); ++i) {
    AppendFactors(from[i], &factors.whole);
    statistics[i] = {};
    for (size_t arg : {2, 3}) {
      const ValueId affine = context.Tensor(arg);
      if (!affine.valid()) continue;
      RETURN_IF_ERROR(context.table().Unify(from[i], context.Factors(affine)[i - kept]));
    }
  }
  while (factors.results.size() < context.node().outputs.size()) {
    factors.results.push_back(statistics);
  }
  return factors;
}

// Of [N, C, places...]: the first dimension is parallel, statistics are taken over the others.
absl::StatusOr<OpFactors> NormOfChannels(OpContext& context, size_t weight_arg) {
  const FactorDims& from = context.Factors(context.Tensor(0));
  if (from.size() < 2) return InferOpaque(context);
  OpFactors factors{.results = {from}};
  for (size_t i = 1; i < from.size(); ++i) AppendFactors(from[i], &factors.whole);
  for (const size_t arg : {weight_arg, weight_arg + 1}) {
    const ValueId affine = context.Tensor(arg);
    if (affine.valid()) {
      RETURN_IF_ERROR(context.table().Unify(from[1], context.Factors(affine)[0]));
    }
  }
  return factors;
}

// group_norm(input, num_groups, weight, bias, eps)
absl::StatusOr<OpFactors> InferGroupNorm(OpContext& context) { return NormOfChannels(context, 2); }

// instance_norm(input, weight, bias, running_mean, running_var, use_input_stats, ...)
absl::StatusOr<OpFactors> InferInstanceNorm(OpContext& context) {
  const bool has_statistics = context.Tensor(3).valid() || context.Tensor(4).valid();
  return has_statistics ? InferOpaque(context) : NormOfChannels(context, 1);
}

// _weight_norm(v, g, dim), of parameters: v scaled to the lengths g, whatever each has of it.
absl::StatusOr<OpFactors> InferWeightNorm(OpContext& context) {
  OpFactors factors{.results = {context.Factors(context.Tensor(0))}};
  const FactorDims lengths = context.Factors(context.Tensor(1));
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (context.table().Size(lengths[i]) == 1) continue;
    RETURN_IF_ERROR(context.table().Unify(factors.results[0][i], lengths[i]));
  }
  for (const ValueId operand : {context.Tensor(0), context.Tensor(1)}) {
    for (const FactorDim& dim : context.Factors(operand)) AppendFactors(dim, &factors.whole);
  }
  return factors;
}

// histc(self, bins, min, max): counts of elements, which shards add up to. Without a range it is
// that of the elements.
absl::StatusOr<OpFactors> InferHistogram(OpContext& context) {
  const std::optional<double> min = NumberArgument(context.node().args, 2);
  const std::optional<double> max = NumberArgument(context.node().args, 3);
  if (!min || !max || *min >= *max) {
    ASSIGN_OR_RETURN(OpFactors all, InferOpaque(context));
    all.is_opaque = false;  // there are as many bins as the argument says
    return all;
  }
  OpFactors factors{.results = {{FactorOfSize(context, context.ResultType().sizes[0])}}};
  AppendFactors(factors.results[0][0], &factors.whole);
  for (const FactorDim& dim : context.Factors(context.Tensor(0))) {
    AppendFactors(dim, &factors.sum);
  }
  return factors;
}

// diff(self, n, dim, prepend, append): the dimension is whole; the others are those of all three.
absl::StatusOr<OpFactors> InferDiff(OpContext& context) {
  const ValueId self = context.Tensor(0);
  OpFactors factors{.results = {context.Factors(self)}};
  const int64_t rank = context.Rank(self);
  const int64_t dim = context.Dim(2, rank, -1);
  FactorDim& factor = factors.results[0][dim];
  AppendFactors(factor, &factors.whole);
  const int64_t add = context.ResultSizes()[dim] - context.Type(self).sizes[dim].value;
  factor = context.table().NewDerived(factor, add);
  AppendFactors(factor, &factors.whole);
  for (size_t arg : {3, 4}) {
    if (!context.Tensor(arg).valid()) continue;
    const FactorDims& other = context.Factors(context.Tensor(arg));
    for (int64_t i = 0; i < rank; ++i) {
      if (i == dim) {
        AppendFactors(other[i], &factors.whole);
        factors.is_opaque = factors.is_opaque || context.table().FollowsRoot(other[i]);
      } else {
        RETURN_IF_ERROR(context.table().Unify(factors.results[0][i], other[i]));
      }
    }
  }
  return factors;
}

constexpr ResultLayout kContiguous = ResultLayout::kContiguous;
constexpr Derivative kTaped = Derivative::kTaped;
constexpr Derivative kExplicit = Derivative::kExplicit;

// The tape keeps all operands and results.
OpRule Rare(std::string_view op, InferFactorsFn infer, int workspace_halves) {
  return {.op = op, .infer = infer, .vjp_workspace_halves = workspace_halves};
}

}  // namespace

std::vector<OpRule> ReductionRules() {
  return {
      With(SumWorkspace,
           {"aten.sum.dim_IntList", InferSumDims, kContiguous, kExplicit, "", 0, true}),
      With(SumWorkspace, {"aten.sum.default", InferSumAll, kContiguous, kExplicit, "", 0, true}),
      With(SumWorkspace, {"aten.mean.dim", InferWholeDims, kContiguous, kExplicit, "", 0, true}),
      With(SumWorkspace, {"aten.mean.default", InferWholeAll, kContiguous, kExplicit, "", 0, true}),
      {"aten.amax.default", InferMaxDims, kContiguous, kTaped, "i0 r0", 8},
      Rare("aten.amin.default", InferWholeDims, 8),
      Rare("aten.max.dim", InferWholeDims, 4),
      Rare("aten.min.dim", InferWholeDims, 4),
      With(CopyWorkspace, Rare("aten.median.dim", InferWholeDims, 4)),
      With(CopyWorkspace, Rare("aten.nanmedian.dim", InferWholeDims, 4)),
      // Composite: the tape keeps what is between.
      Rare("aten.quantile.scalar", InferQuantile, 3),
      Rare("aten.nanquantile.scalar", InferQuantile, 3),
      Rare("aten.mode.default", InferMode, 4),
      With(ArgSortWorkspace, Rare("aten.kthvalue.default", InferKthValue, 4)),
      Rare("aten.prod.dim_int", InferWholeDims, 10),
      Rare("aten.var.correction", InferVariance, 4),
      Rare("aten.var.dim", InferVariance, 3),
      Rare("aten.std.correction", InferVariance, 5),
      Rare("aten.std.dim", InferVariance, 3),
      Rare("aten.linalg_vector_norm.default", InferVectorNorm, 2),
      With(LogSumExpWorkspace,
           {"aten.logsumexp.default", InferWholeDims, kContiguous, kTaped, "i0 r0", 4}),
      With(FlagsWorkspace, {"aten.any.dim", InferWholeDims, kContiguous}),
      {"aten.any.default", InferWholeAll, kContiguous},
      {"aten.argmax.default", InferWholeDims, kContiguous},
      {"aten.argmin.default", InferWholeDims, kContiguous},
      {"aten.all.default", InferWholeAll, kContiguous},
      {"aten.softmax.int", InferAlongDim, kContiguous},
      {"aten._softmax.default", InferAlongDim, kContiguous, kTaped, "r0"},
      {"aten.log_softmax.int", InferAlongDim, kContiguous},
      {"aten._log_softmax.default", InferAlongDim, kContiguous, kTaped, "r0"},
      With(ConversionWorkspace,
           {"aten.cumsum.default", InferAlongDim, kContiguous, kTaped, "", 4, true}),
      Rare("aten.cumprod.default", InferAlongDim, 7),
      Rare("aten.cummax.default", InferAlongDim, 4),
      Rare("aten.cummin.default", InferAlongDim, 4),
      Rare("aten.logcumsumexp.default", InferAlongDim, 14),
      With(SortWorkspace, Rare("aten.sort.default", InferSort, 4)),
      With(SortWorkspace, Rare("aten.sort.stable", InferStableSort, 4)),
      With(ArgSortWorkspace, {"aten.argsort.default", InferSort, kContiguous}),
      Rare("aten.topk.default", InferTopK, 4),
      {"aten.layer_norm.default", InferLayerNorm, kContiguous},
      {"aten.native_layer_norm.default", InferLayerNorm, kContiguous, kTaped, "i0 i1 i2 r1 r2", 1},
      // Composite: the tape keeps what is between.
      {"aten.rms_norm.default", InferLayerNorm, kContiguous},
      {"aten.group_norm.default", InferGroupNorm, kContiguous},
      {"aten.instance_norm.default", InferInstanceNorm, kContiguous},
      {"aten._weight_norm.default", InferWeightNorm, kContiguous},
      With(DiffWorkspace, Rare("aten.diff.default", InferDiff, 6)),
      With(HistogramWorkspace,
           {"aten.histc.default", InferHistogram, kContiguous, Derivative::kZero}),
      {"aten.tril.default", InferTriangle, kContiguous},
      {"aten.triu.default", InferTriangle, kContiguous},
  };
}

}  // namespace autosp
