// Look-ups by index tensors.
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
  };
}

}  // namespace autosp
