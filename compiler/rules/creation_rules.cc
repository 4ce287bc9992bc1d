// Ops that make tensors from numbers.
#include "common/status_macros.h"
#include "compiler/rules/op_rule.h"
#include "compiler/rules/opaque_sizes.h"

namespace autosp {
namespace {

// Results have factors of their own, which uses then identify. A shard of a constant is a constant.
absl::StatusOr<OpFactors> InferConstant(OpContext& context) {
  OpFactors factors;
  FactorDims dims;
  for (const SymInt& size : context.ResultType().sizes) {
    dims.push_back(FactorOfSize(context, size));
    AppendFactors(dims.back(), &factors.generated);
  }
  factors.results = {dims};
  return factors;
}

// Numbers that depend on their place, as those of an arange: it is made whole and cut.
absl::StatusOr<OpFactors> InferRange(OpContext& context) {
  ASSIGN_OR_RETURN(OpFactors factors, InferConstant(context));
  factors.whole = std::move(factors.generated);
  factors.generated.clear();
  return factors;
}

}  // namespace

FactorDim FactorOfSize(OpContext& context, const SymInt& size) {
  if (!size.expr.empty()) return context.table().ForExpression(size.expr, size.value);
  if (size.value == 1) return {};
  return {context.table().NewFactor(size.value)};
}

absl::StatusOr<OpFactors> InferOpaque(OpContext& context) {
  OpFactors factors;
  for (ValueId operand : OperandsOf(context.node())) {
    for (const FactorDim& dim : context.Factors(operand)) AppendFactors(dim, &factors.whole);
  }
  ASSIGN_OR_RETURN(std::optional<std::vector<FactorDims>> followed, FollowedSizes(context));
  factors.is_opaque = !followed;
  if (followed) factors.results = *std::move(followed);
  for (size_t i = factors.results.size(); i < context.node().outputs.size(); ++i) {
    factors.results.emplace_back();
    for (const SymInt& size : context.ResultType(i).sizes) {
      factors.results.back().push_back(FactorOfSize(context, size));
    }
  }
  for (const FactorDims& dims : factors.results) {
    for (const FactorDim& dim : dims) AppendFactors(dim, &factors.whole);
  }
  return factors;
}

std::vector<OpRule> CreationRules() {
  return {
      {"aten.arange.default", InferRange},
      {"aten.arange.start", InferRange},
      {"aten.arange.start_step", InferRange},
      // Canonicalisation leaves a comparison of two ranges.
      {"aten.eye.default", InferRange},
      {"aten.eye.m", InferRange},
      {"aten.full.default", InferConstant},
      {"aten.ones.default", InferConstant},
      {"aten.zeros.default", InferConstant},
      {"aten.new_ones.default", InferConstant, ResultLayout::kContiguous, Derivative::kZero},
      {"aten.new_zeros.default", InferConstant, ResultLayout::kContiguous, Derivative::kZero},
      {"aten.new_full.default", InferConstant, ResultLayout::kContiguous, Derivative::kZero},
      {"aten.scalar_tensor.default", InferConstant},
  };
}

}  // namespace autosp
