#include "compiler/rules/opaque_sizes.h"

#include <algorithm>
#include <map>

#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

using Sizes = absl::StatusOr<std::optional<std::vector<FactorDims>>>;

std::vector<FactorDims> ForAllResults(const OpContext& context, const FactorDims& dims) {
  return std::vector<FactorDims>(context.node().outputs.size(), dims);
}

// As the first operand, whatever the others are.
Sizes LikeFirst(OpContext& context) {
  return ForAllResults(context, context.Factors(context.Tensor(0)));
}

Sizes LikeSecond(OpContext& context) {
  const FactorDims& dims = context.Factors(context.Tensor(1));
  if (dims.size() != context.Factors(context.Tensor(0)).size()) return std::nullopt;
  return ForAllResults(context, dims);
}

Sizes Stretched(OpContext& context) {
  ASSIGN_OR_RETURN(const FactorDims dims, BroadcastFactors(context, OperandsOf(context.node())));
  return ForAllResults(context, dims);
}

// Numbers: of all elements together.
Sizes Scalars(OpContext& context) { return ForAllResults(context, {}); }

// One number, that of a mean. A sum may be divided by a number that was made of sizes, which nobody
// looks for.
Sizes MeanLoss(OpContext& context) {
  constexpr int64_t kSum = 2;
  const std::vector<Argument>& args = context.node().args;
  const bool is_sum = IntegerArgument(args, args.size() - 1) == kSum;
  if (is_sum) return std::nullopt;
  return Scalars(context);
}

// A loss of elements: a number, or one per element.
Sizes ElementLoss(OpContext& context) {
  if (context.ResultType().rank() == 0) return MeanLoss(context);
  return Stretched(context);
}

// A loss of vectors in the last dimension of the first operands: a number, or one per vector.
Sizes VectorLoss(OpContext& context, size_t num_vectors) {
  if (context.ResultType().rank() == 0) return MeanLoss(context);
  std::vector<ValueId> vectors = OperandsOf(context.node());
  vectors.resize(std::min(vectors.size(), num_vectors));
  ASSIGN_OR_RETURN(FactorDims dims, BroadcastFactors(context, vectors));
  if (dims.empty()) return std::nullopt;
  dims.pop_back();
  return ForAllResults(context, dims);
}
Sizes LossOfOne(OpContext& context) { return VectorLoss(context, 1); }
Sizes LossOfTwo(OpContext& context) { return VectorLoss(context, 2); }

// What is left where some dimensions are reduced, which stay with size 1 if `keep` says so.
FactorDims Without(const FactorDims& from, const std::vector<int64_t>& reduced, bool keep) {
  FactorDims dims;
  for (size_t i = 0; i < from.size(); ++i) {
    const bool is_reduced = std::ranges::count(reduced, static_cast<int64_t>(i)) > 0;
    if (!is_reduced) dims.push_back(from[i]);
    if (is_reduced && keep) dims.emplace_back();
  }
  return dims;
}

// Over the dimensions of an argument, or all where there are none.
Sizes Reduced(OpContext& context, size_t dims_arg, size_t keep_arg) {
  const FactorDims& from = context.Factors(context.Tensor(0));
  const std::vector<int64_t> dims = context.DimList(dims_arg, static_cast<int64_t>(from.size()));
  return ForAllResults(context, Without(from, dims, context.Bool(keep_arg).value_or(false)));
}
// (self, dims, keepdim), (self, k or q or p, dims, keepdim), (self, dims, correction, keepdim)
Sizes ReducedFirst(OpContext& context) { return Reduced(context, 1, 2); }
Sizes ReducedSecond(OpContext& context) { return Reduced(context, 2, 3); }
Sizes ReducedSpread(OpContext& context) { return Reduced(context, 1, 3); }

// cdist(x1 [..., p, m], x2 [..., r, m]): [..., p, r]
Sizes Distances(OpContext& context) {
  FactorDims left = context.Factors(context.Tensor(0));
  FactorDims right = context.Factors(context.Tensor(1));
  if (left.size() != right.size() || left.size() < 2) return std::nullopt;
  const size_t rows = left.size() - 2;
  RETURN_IF_ERROR(context.table().Unify(left.back(), right.back()));
  FactorDims dims = left;
  for (size_t i = 0; i < rows; ++i) {
    if (dims[i].empty()) dims[i] = right[i];
    if (!right[i].empty()) RETURN_IF_ERROR(context.table().Unify(dims[i], right[i]));
  }
  dims.back() = right[rows];
  return ForAllResults(context, dims);
}

// bilinear(x1 [..., a], x2 [..., b], weight [o, a, b], bias [o]): [..., o]
Sizes Bilinear(OpContext& context) {
  FactorDims dims = context.Factors(context.Tensor(0));
  const FactorDims& other = context.Factors(context.Tensor(1));
  const FactorDims& weight = context.Factors(context.Tensor(2));
  for (size_t i = 0; i + 1 < dims.size(); ++i) {
    RETURN_IF_ERROR(context.table().Unify(dims[i], other[i]));
  }
  RETURN_IF_ERROR(context.table().Unify(dims.back(), weight[1]));
  RETURN_IF_ERROR(context.table().Unify(other.back(), weight[2]));
  dims.back() = weight[0];
  return ForAllResults(context, dims);
}

// outer(a, b): all pairs.
Sizes Outer(OpContext& context) {
  return ForAllResults(context, {context.Factors(context.Tensor(0)).at(0),
                                 context.Factors(context.Tensor(1)).at(0)});
}

// addmv(self, matrix [n, m], vector [m]): [n]
Sizes MatrixVector(OpContext& context) {
  const FactorDims& matrix = context.Factors(context.Tensor(1));
  if (context.table().FollowsRoot(matrix[1])) return std::nullopt;
  const FactorDims& self = context.Factors(context.Tensor(0));
  RETURN_IF_ERROR(context.table().Unify(matrix[1], context.Factors(context.Tensor(2))[0]));
  if (!self.empty() && !self[0].empty()) {
    RETURN_IF_ERROR(context.table().Unify(matrix[0], self[0]));
  }
  return ForAllResults(context, {matrix[0]});
}

// tensordot(self, other, dims of self, dims of other): what is left of both. A sum over what
// follows the job may be divided by its size, which nobody looks for.
Sizes TensorDot(OpContext& context) {
  const FactorDims& left = context.Factors(context.Tensor(0));
  const FactorDims& right = context.Factors(context.Tensor(1));
  const auto dims_of = [&](size_t arg, const FactorDims& operand) {
    if (context.Ints(arg).empty()) return std::vector<int64_t>{};
    return context.DimList(arg, static_cast<int64_t>(operand.size()));
  };
  const std::vector<int64_t> from_left = dims_of(2, left);
  const std::vector<int64_t> from_right = dims_of(3, right);
  if (from_left.size() != from_right.size()) return std::nullopt;
  for (size_t i = 0; i < from_left.size(); ++i) {
    if (context.table().FollowsRoot(left[from_left[i]])) return std::nullopt;
    if (left[from_left[i]].empty() || right[from_right[i]].empty()) continue;
    RETURN_IF_ERROR(context.table().Unify(left[from_left[i]], right[from_right[i]]));
  }
  FactorDims dims = Without(left, from_left, false);
  const FactorDims rest = Without(right, from_right, false);
  dims.insert(dims.end(), rest.begin(), rest.end());
  return ForAllResults(context, dims);
}

// meshgrid of vectors: each result has the dimension of each.
Sizes MeshGrid(OpContext& context) {
  FactorDims dims;
  for (const ValueId vector : context.Tensors(0)) {
    const FactorDims& own = context.Factors(vector);
    dims.push_back(own.empty() ? FactorDim{} : own[0]);
  }
  const auto* indexing = ArgumentAs<std::string>(context.node().args, 1);
  if (indexing != nullptr && *indexing == "xy" && dims.size() > 1) std::swap(dims[0], dims[1]);
  return ForAllResults(context, dims);
}

// take_along_dim(self, indices, dim): as the indices, and elsewhere stretched.
Sizes TakeAlong(OpContext& context) {
  const FactorDims& self = context.Factors(context.Tensor(0));
  const FactorDims& indices = context.Factors(context.Tensor(1));
  const auto rank = static_cast<int64_t>(self.size());
  if (!context.Has(2) || self.size() != indices.size()) return std::nullopt;
  FactorDims dims = indices;
  for (int64_t i = 0; i < rank; ++i) {
    if (i == context.Dim(2, rank) || self[i].empty()) continue;
    if (dims[i].empty()) dims[i] = self[i];
    RETURN_IF_ERROR(context.table().Unify(dims[i], self[i]));
  }
  return ForAllResults(context, dims);
}

// glu(self, dim): half of features; of tokens, which half would be a guess.
Sizes Gated(OpContext& context) {
  FactorDims dims = context.Factors(context.Tensor(0));
  const auto rank = static_cast<int64_t>(dims.size());
  if (rank == 0) return std::nullopt;
  FactorDim& gated = dims[context.Dim(1, rank, -1)];
  if (context.table().FollowsRoot(gated)) return std::nullopt;
  gated = FactorOfSize(context, context.ResultType().sizes[context.Dim(1, rank, -1)]);
  return ForAllResults(context, dims);
}

// det, slogdet: one number for each matrix.
Sizes OfMatrices(OpContext& context) {
  FactorDims dims = context.Factors(context.Tensor(0));
  if (dims.size() < 2) return std::nullopt;
  dims.resize(dims.size() - 2);
  return ForAllResults(context, dims);
}

// cov, corrcoef of rows: all pairs of rows.
Sizes PairsOfRows(OpContext& context) {
  const FactorDims& self = context.Factors(context.Tensor(0));
  if (self.size() != 2) return std::nullopt;
  return ForAllResults(context, {self[0], self[0]});
}

// _native_batch_norm_legit_functional(x [N, C, places...], ...): what is normalised, and four
// statistics of channels.
Sizes OfBatchNorm(OpContext& context) {
  const FactorDims& self = context.Factors(context.Tensor(0));
  if (self.size() < 2) return std::nullopt;
  for (const ValueId operand : OperandsOf(context.node())) {
    const FactorDims& of_channels = context.Factors(operand);
    if (of_channels.size() == 1) RETURN_IF_ERROR(context.table().Unify(self[1], of_channels[0]));
  }
  std::vector<FactorDims> results(context.node().outputs.size(), FactorDims{self[1]});
  results[0] = self;
  return results;
}

using SizesFn = Sizes (*)(OpContext&);

void AddRows(SizesFn sizes, std::initializer_list<std::string_view> ops,
             std::map<std::string_view, SizesFn>* table) {
  for (const std::string_view op : ops) table->emplace(op, sizes);
}

void AddElementwise(std::map<std::string_view, SizesFn>* table) {
  AddRows(LikeFirst,
          {"aten._to_copy.default",
           "aten.alias.default",
           "aten.angle.default",
           "aten.argsort.stable",
           "aten.batch_norm.default",
           "aten.channel_shuffle.default",
           "aten.fft_fftshift.default",
           "aten.fft_ifftshift.default",
           "aten.fill.Tensor",
           "aten.fliplr.default",
           "aten.flipud.default",
           "aten.float_power.Tensor_Scalar",
           "aten.index_copy.default",
           "aten.index_fill.int_Scalar",
           "aten.index_fill.int_Tensor",
           "aten.index_reduce.default",
           "aten.inverse.default",
           "aten.isfinite.default",
           "aten.isin.Tensor_Scalar",
           "aten.isin.Tensor_Tensor",
           "aten.lift_fresh_copy.default",
           "aten.linalg_inv.default",
           "aten.linalg_matrix_exp.default",
           "aten.linalg_matrix_power.default",
           "aten.matrix_exp.default",
           "aten.matrix_power.default",
           "aten.msort.default",
           "aten.prelu.default",
           "aten.renorm.default",
           "aten.round.decimals",
           "aten.scatter.reduce",
           "aten.scatter.value_reduce",
           "aten.scatter_reduce.two",
           "aten.special_ndtr.default",
           "aten.to.device",
           "aten.to.dtype_layout",
           "aten.to.other",
           "aten.type_as.default",
           "aten.xlogy.Scalar_Other"},
          table);
  AddRows(Stretched,
          {"aten.bitwise_left_shift.Tensor", "aten.bitwise_right_shift.Tensor",
           "aten.float_power.Tensor_Tensor", "aten.heaviside.default", "aten.isclose.default",
           "aten.ldexp.Tensor", "aten.linalg_cross.default"},
          table);
  AddRows(LikeSecond, {"aten.linalg_solve.default"}, table);
}

void AddReductions(std::map<std::string_view, SizesFn>* table) {
  AddRows(
      Scalars,
      {"aten.dist.default", "aten.max.default", "aten.median.default", "aten.min.default",
       "aten.nanmedian.default", "aten.norm.Scalar", "aten.norm.ScalarOpt_dtype",
       "aten.nuclear_norm.default", "aten.prod.default", "aten.std.default", "aten.var.default"},
      table);
  AddRows(ReducedFirst,
          {"aten.all.dim", "aten.all.dims", "aten.aminmax.default", "aten.any.dims",
           "aten.frobenius_norm.dim", "aten.nanmean.default"},
          table);
  AddRows(ReducedFirst, {"aten.count_nonzero.default", "aten.count_nonzero.dim_IntList"}, table);
  AddRows(ReducedSecond,
          {"aten.linalg_norm.default", "aten.norm.ScalarOpt_dim", "aten.norm.ScalarOpt_dim_dtype"},
          table);
  AddRows(ReducedSpread,
          {"aten.std_mean.correction", "aten.std_mean.dim", "aten.var_mean.correction",
           "aten.var_mean.dim"},
          table);
  AddRows(OfMatrices,
          {"aten.det.default", "aten.linalg_det.default", "aten.linalg_slogdet.default",
           "aten.logdet.default", "aten.slogdet.default"},
          table);
}

void AddLosses(std::map<std::string_view, SizesFn>* table) {
  AddRows(ElementLoss,
          {"aten.hinge_embedding_loss.default", "aten.margin_ranking_loss.default",
           "aten.poisson_nll_loss.default", "aten.soft_margin_loss.default"},
          table);
  AddRows(LossOfOne, {"aten.multi_margin_loss.default"}, table);
  AddRows(LossOfTwo, {"aten.multilabel_margin_loss.default"}, table);
}

void AddPairs(std::map<std::string_view, SizesFn>* table) {
  AddRows(Distances, {"aten.cdist.default"}, table);
  AddRows(Bilinear, {"aten.bilinear.default"}, table);
  AddRows(Outer, {"aten.ger.default", "aten.outer.default"}, table);
  AddRows(MatrixVector, {"aten.addmv.default"}, table);
  AddRows(TensorDot, {"aten.tensordot.default"}, table);
  AddRows(MeshGrid, {"aten.meshgrid.default", "aten.meshgrid.indexing"}, table);
  AddRows(TakeAlong, {"aten.take_along_dim.default"}, table);
  AddRows(Gated, {"aten.glu.default"}, table);
  AddRows(OfBatchNorm, {"aten._native_batch_norm_legit_functional.default"}, table);
  AddRows(PairsOfRows, {"aten.corrcoef.default", "aten.cov.default"}, table);
}

const std::map<std::string_view, SizesFn>& Table() {
  static const auto& table = *[] {
    auto* rows = new std::map<std::string_view, SizesFn>;
    AddElementwise(rows);
    AddReductions(rows);
    AddLosses(rows);
    AddPairs(rows);
    return rows;
  }();
  return table;
}

}  // namespace

Sizes FollowedSizes(OpContext& context) {
  const auto row = Table().find(context.node().op);
  if (row == Table().end()) return std::nullopt;
  return row->second(context);
}

std::vector<std::string_view> OpsOfFollowedSizes() {
  std::vector<std::string_view> ops;
  for (const auto& [op, sizes] : Table()) ops.push_back(op);
  return ops;
}

}  // namespace autosp
