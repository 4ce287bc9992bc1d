// Look-ups by index tensors.
#include <algorithm>

#include "common/status_macros.h"
#include "compiler/rules/op_rule.h"
#include "compiler/rules/op_workspace.h"

namespace autosp {
namespace {

// x[i0, i1, ...]: the indexed dimensions are whole, those of the (broadcast) indices are parallel.
absl::StatusOr<OpFactors> InferIndex(OpContext& context) {
  const FactorDims& from = context.Factors(context.Tensor(0));
  const std::vector<ValueId> slots = context.Tensors(1);
  std::vector<ValueId> indices;
  size_t first = slots.size();
  size_t last = 0;
  for (size_t i = 0; i < slots.size(); ++i) {
    if (!slots[i].valid()) continue;
    if (context.Type(slots[i]).dtype == DType::kBool) return InferOpaque(context);
    indices.push_back(slots[i]);
    first = std::min(first, i);
    last = i;
  }
  if (indices.empty()) return InferOpaque(context);
  ASSIGN_OR_RETURN(FactorDims index_dims, BroadcastFactors(context, indices));
  const bool adjacent = last - first + 1 == indices.size();
  OpFactors factors;
  FactorDims dims;
  if (!adjacent) dims = index_dims;
  for (size_t i = 0; i < from.size(); ++i) {
    const bool indexed = i < slots.size() && slots[i].valid();
    if (adjacent && i == first) dims.insert(dims.end(), index_dims.begin(), index_dims.end());
    if (indexed) {
      AppendFactors(from[i], &factors.whole);
    } else {
      dims.push_back(from[i]);
    }
  }
  factors.results = {dims};
  return factors;
}

// gather(self, dim, index): the result has the index's shape; `self` is whole along dim, and where
// the index is shorter than it.
absl::StatusOr<OpFactors> InferGather(OpContext& context) {
  const ValueId self = context.Tensor(0);
  const ValueId index = context.Tensor(2);
  const int64_t rank = context.Rank(self);
  const int64_t dim = context.Dim(1, rank);
  OpFactors factors{.results = {context.Factors(index)}};
  for (int64_t i = 0; i < rank; ++i) {
    const FactorDim& from = context.Factors(self)[i];
    if (i != dim && context.table().Size(from) == context.table().Size(factors.results[0][i])) {
      RETURN_IF_ERROR(context.table().Unify(from, factors.results[0][i]));
    } else {
      AppendFactors(from, &factors.whole);
      if (i != dim) AppendFactors(factors.results[0][i], &factors.whole);
    }
  }
  return factors;
}

// States that an index says a place for each of so many rows. Where both are products of several
// factors, they may be cut in different ways.
absl::Status UnifyPlaces(OpContext& context, const FactorDim& places, const FactorDim& rows) {
  FactorTable& table = context.table();
  const FactorDim of_places = table.Resolve(places);
  const FactorDim of_rows = table.Resolve(rows);
  const auto is_as_large = [&](FactorVar a, FactorVar b) { return table.Size(a) == table.Size(b); };
  const bool is_one = (of_places.size() == 1 || of_rows.size() == 1) &&
                      table.Size(of_places) == table.Size(of_rows);
  const bool is_cut_alike = std::ranges::equal(of_places, of_rows, is_as_large);
  return is_one || is_cut_alike ? table.Unify(rows, places) : absl::OkStatus();
}

// scatter(self, dim, index, src or value): the result has the shape of `self`; dimensions that the
// index covers in part are whole.
absl::StatusOr<OpFactors> InferScatter(OpContext& context) {
  const ValueId self = context.Tensor(0);
  OpFactors factors{.results = {context.Factors(self)}};
  const FactorDims& dims = factors.results[0];
  const auto dim = static_cast<size_t>(context.Dim(1, context.Rank(self)));
  for (size_t arg : {2, 3}) {
    const ValueId other = context.Tensor(arg);
    if (!other.valid()) continue;
    const FactorDims& from = context.Factors(other);
    if (from.size() != dims.size()) return InferOpaque(context);
    for (size_t i = 0; i < dims.size(); ++i) {
      if (i != dim && context.table().Size(from[i]) == context.table().Size(dims[i])) {
        RETURN_IF_ERROR(context.table().Unify(dims[i], from[i]));
        continue;
      }
      AppendFactors(dims[i], &factors.whole);
      AppendFactors(from[i], &factors.whole);
    }
  }
  if (context.Tensor(3).valid()) {
    RETURN_IF_ERROR(UnifyPlaces(context, context.Factors(context.Tensor(2))[dim],
                                context.Factors(context.Tensor(3))[dim]));
  }
  return factors;
}

// index_select(self, dim, index)
absl::StatusOr<OpFactors> InferIndexSelect(OpContext& context) {
  const ValueId self = context.Tensor(0);
  OpFactors factors{.results = {context.Factors(self)}};
  const int64_t dim = context.Dim(1, context.Rank(self));
  AppendFactors(factors.results[0][dim], &factors.whole);
  factors.results[0][dim] = context.Factors(context.Tensor(2))[0];
  return factors;
}

// index_add(self, dim, index, source, alpha): as scatter, with one index for all of a place.
absl::StatusOr<OpFactors> InferIndexAdd(OpContext& context) {
  const FactorDims& dims = context.Factors(context.Tensor(0));
  const FactorDims& source = context.Factors(context.Tensor(3));
  if (dims.empty() || source.size() != dims.size()) return InferOpaque(context);
  OpFactors factors{.results = {dims}};
  const auto dim = static_cast<size_t>(context.Dim(1, context.Rank(context.Tensor(0))));
  for (size_t i = 0; i < dims.size(); ++i) {
    if (i != dim) {
      RETURN_IF_ERROR(context.table().Unify(dims[i], source[i]));
      continue;
    }
    const FactorDim& places = context.Factors(context.Tensor(2))[0];
    RETURN_IF_ERROR(UnifyPlaces(context, places, source[i]));
    for (const FactorDim& whole : {dims[i], source[i], places}) {
      AppendFactors(whole, &factors.whole);
    }
  }
  return factors;
}

// bucketize(self, boundaries), searchsorted(sorted, self): where each value lies among the
// boundaries, which are whole. Those of searchsorted may have leading dimensions, as the values.
absl::StatusOr<OpFactors> InferSearch(OpContext& context) {
  const bool is_bucketize = context.node().op == "aten.bucketize.Tensor";
  const FactorDims& values = context.Factors(context.Tensor(is_bucketize ? 0 : 1));
  OpFactors factors{.results = {values}};
  // Of searchsorted also the order in which the boundaries are sorted.
  for (const ValueId id :
       {context.Tensor(is_bucketize ? 1 : 0), is_bucketize ? ValueId{} : context.Tensor(5)}) {
    if (!id.valid()) continue;
    const FactorDims& sorted = context.Factors(id);
    if (sorted.empty()) return InferOpaque(context);
    AppendFactors(sorted.back(), &factors.whole);
    if (sorted.size() == 1) continue;
    if (sorted.size() != values.size()) return InferOpaque(context);
    for (size_t i = 0; i + 1 < sorted.size(); ++i) {
      RETURN_IF_ERROR(context.table().Unify(values[i], sorted[i]));
    }
  }
  return factors;
}

// masked_scatter(self, mask, source): which element of the source comes next depends on all of the
// mask before it.
absl::StatusOr<OpFactors> InferMaskedScatter(OpContext& context) {
  ASSIGN_OR_RETURN(FactorDims dims,
                   BroadcastFactors(context, {context.Tensor(0), context.Tensor(1)}));
  OpFactors factors{.results = {std::move(dims)}};
  for (const FactorDim& dim : factors.results[0]) AppendFactors(dim, &factors.whole);
  for (const FactorDim& dim : context.Factors(context.Tensor(2))) {
    AppendFactors(dim, &factors.whole);
  }
  return factors;
}

// index_put(self, indices, values, accumulate): anything may be written anywhere. Where the first
// dimensions are indexed by tensors of one rank, the values have those of the indices first.
absl::StatusOr<OpFactors> InferIndexPut(OpContext& context) {
  OpFactors factors{.results = {context.Factors(context.Tensor(0))}};
  const FactorDims& values = context.Factors(context.Tensor(2));
  const std::vector<ValueId> slots = context.Tensors(1);
  const auto is_first = [&](const FactorDims& index) {
    const bool leads = std::ranges::all_of(slots, [&](ValueId slot) {
      return slot.valid() && context.Type(slot).dtype != DType::kBool &&
             context.Factors(slot).size() == index.size();
    });
    return leads && values.size() + slots.size() == factors.results[0].size() + index.size();
  };
  for (const ValueId slot : slots) {
    if (!slot.valid()) continue;
    const FactorDims& index = context.Factors(slot);
    for (size_t i = 0; i < index.size(); ++i) {
      AppendFactors(index[i], &factors.whole);
      const bool is_same =
          is_first(index) && context.table().Size(index[i]) == context.table().Size(values[i]);
      if (is_same) RETURN_IF_ERROR(context.table().Unify(index[i], values[i]));
    }
  }
  for (const FactorDim& dim : factors.results[0]) AppendFactors(dim, &factors.whole);
  for (const FactorDim& dim : values) AppendFactors(dim, &factors.whole);
  return factors;
}

// one_hot(self, num_classes): canonicalisation leaves comparisons.
absl::StatusOr<OpFactors> InferOneHot(OpContext& context) {
  OpFactors factors{.results = {context.Factors(context.Tensor(0))}};
  factors.results[0].push_back(FactorOfSize(context, context.ResultType().sizes.back()));
  AppendFactors(factors.results[0].back(), &factors.whole);
  return factors;
}

// diagonal(self, offset, dim1, dim2), which canonicalize replaces: both dimensions are whole, and
// what they leave comes last.
absl::StatusOr<OpFactors> InferDiagonal(OpContext& context) {
  const ValueId self = context.Tensor(0);
  const FactorDims& from = context.Factors(self);
  const std::vector<int64_t> pair = {context.Dim(2, context.Rank(self), 0),
                                     context.Dim(3, context.Rank(self), 1)};
  OpFactors factors{.results = {{}}};
  for (int64_t i = 0; i < context.Rank(self); ++i) {
    if (std::ranges::count(pair, i) == 0) {
      factors.results[0].push_back(from[i]);
    } else {
      AppendFactors(from[i], &factors.whole);
    }
  }
  const SymInt& size = context.ResultType().sizes.back();
  const int64_t removed = context.Type(self).sizes[pair[0]].value - size.value;
  const bool is_square =
      context.table().Resolve(from[pair[0]]) == context.table().Resolve(from[pair[1]]);
  factors.results[0].push_back(is_square && size.value > 1
                                   ? context.table().NewDerived(from[pair[0]], -removed)
                                   : FactorOfSize(context, size));
  AppendFactors(factors.results[0].back(), &factors.whole);
  factors.is_opaque = !is_square && (context.table().FollowsRoot(from[pair[0]]) ||
                                     context.table().FollowsRoot(from[pair[1]]));
  return factors;
}

constexpr Derivative kTaped = Derivative::kTaped;

}  // namespace

std::vector<OpRule> IndexingRules() {
  return {
      {"aten.index.Tensor", InferIndex, ResultLayout::kContiguous, kTaped, "i1 i2 i3 i4", 0, true},
      With(GatherWorkspace, {"aten.gather.default", InferGather, ResultLayout::kContiguous, kTaped,
                             "i0 i1", 4, true}),
      // Rare: the tape keeps all operands and results.
      With(ScatterWorkspace,
           {.op = "aten.scatter.src", .infer = InferScatter, .vjp_workspace_halves = 4}),
      With(ScatterWorkspace,
           {.op = "aten.scatter.value", .infer = InferScatter, .vjp_workspace_halves = 4}),
      With(ScatterWorkspace,
           {.op = "aten.scatter_add.default", .infer = InferScatter, .vjp_workspace_halves = 4}),
      {"aten.index_select.default", InferIndexSelect, ResultLayout::kContiguous, kTaped, "i1", 3,
       true},
      {.op = "aten.index_add.default", .infer = InferIndexAdd, .vjp_workspace_halves = 2},
      With(SearchWorkspace, {"aten.bucketize.Tensor", InferSearch}),
      With(SearchWorkspace, {"aten.searchsorted.Tensor", InferSearch}),
      {.op = "aten.masked_scatter.default",
       .infer = InferMaskedScatter,
       .vjp_workspace_halves = 11},
      {.op = "aten.index_put.default", .infer = InferIndexPut, .vjp_workspace_halves = 2},
      {"aten.one_hot.default", InferOneHot},
      {"aten.diagonal.default", InferDiagonal, ResultLayout::kView},
  };
}

}  // namespace autosp
