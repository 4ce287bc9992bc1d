#include "compiler/rules/expert_products.h"

#include <algorithm>

#include "common/status_macros.h"

namespace autosp {
namespace {

// Of one row: its place in the order of experts; the row that it reads; and while rows are sorted
// its expert and a second order.
constexpr int64_t kOrderBytes = 8;
constexpr int64_t kReadBytes = 8;
constexpr int64_t kSortBytes = 24;

int64_t BytesOf(const TensorExtent& tensor) { return tensor.numel * SizeOf(tensor.dtype); }

}  // namespace

// Rows in order are gone when the result is made, and there are as many results in order then.
int64_t ExpertMmWorkspace(const Extents& operands, const Extents& results) {
  const int64_t rows = operands[2].numel;
  const int64_t read = rows * (kOrderBytes + kReadBytes) + BytesOf(operands[0]);
  const int64_t written = rows * kOrderBytes + std::max(BytesOf(operands[0]), BytesOf(results[0]));
  return std::max({rows * kSortBytes, read, written});
}

int64_t ExpertMmWeightGradWorkspace(const Extents& operands) {
  const int64_t rows = operands[2].numel;
  return std::max(rows * kSortBytes,
                  rows * (kOrderBytes + kReadBytes) + BytesOf(operands[0]) + BytesOf(operands[1]));
}

OpFlops ExpertMmFlops(const OpCall& call) {
  double flops = 2 * static_cast<double>(call.operands[0].back());
  for (int64_t size : call.results[0]) flops *= static_cast<double>(size);
  const int num_gradients = call.needs_grad[0] + call.needs_grad[1];
  return {.kind = FlopKind::kProduct, .forward = flops, .backward = num_gradients * flops};
}

absl::StatusOr<OpFactors> InferExpertMm(OpContext& context) {
  const FactorDims rows = context.Factors(context.Tensor(0));
  const FactorDims weight = context.Factors(context.Tensor(1));
  const FactorDims experts = context.Factors(context.Tensor(2));
  if (weight.size() != 3 || rows.size() != experts.size() + 1) return InferOpaque(context);
  OpFactors factors{.results = {rows}};
  for (size_t i = 0; i < experts.size(); ++i) {
    RETURN_IF_ERROR(context.table().Unify(rows[i], experts[i]));
  }
  RETURN_IF_ERROR(context.table().Unify(rows.back(), weight[1]));
  factors.results[0].back() = weight[2];
  AppendFactors(weight[0], &factors.whole);
  AppendFactors(rows.back(), &factors.sum);
  return factors;
}

// (rows [R, K], matrices [G, K, N], ends [G]) -> [R, N]: which matrix a row meets depends on how
// many rows come before it. Forms of other ranks, which sum or share rows, are opaque.
absl::StatusOr<OpFactors> InferGroupedMm(OpContext& context) {
  const FactorDims rows = context.Factors(context.Tensor(0));
  const FactorDims matrices = context.Factors(context.Tensor(1));
  const bool has_ends = context.Tensor(2).valid() && !context.Tensor(3).valid();
  if (rows.size() != 2 || matrices.size() != 3 || !has_ends) return InferOpaque(context);
  RETURN_IF_ERROR(context.table().Unify(rows[1], matrices[1]));
  RETURN_IF_ERROR(context.table().Unify(matrices[0], context.Factors(context.Tensor(2))[0]));
  OpFactors factors{.results = {{rows[0], matrices[2]}}};
  for (const FactorDim& dim : {rows[0], rows[1], matrices[0]}) AppendFactors(dim, &factors.whole);
  return factors;
}

}  // namespace autosp
