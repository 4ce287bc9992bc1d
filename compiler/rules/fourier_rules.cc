// Fourier transforms (fourier.h): a dimension that is transformed is whole, all others are
// parallel.
#include <algorithm>
#include <optional>

#include "common/errors.h"
#include "compiler/ir/fourier.h"
#include "compiler/rules/op_rule.h"
#include "compiler/rules/op_workspace.h"

namespace autosp {
namespace {

constexpr int64_t kPair = 2;

// As archives may be damaged.
absl::Status CheckCall(const OpContext& context, bool is_of_pairs) {
  const ValueId self = context.Tensor(0);
  const int64_t rank = context.Rank(self) - (is_of_pairs ? 1 : 0);
  const std::optional<int64_t> dim = context.Int(kFftDim);
  const bool has_dim = dim && *dim >= 0 && *dim < rank;
  const bool has_pair = !is_of_pairs || context.Type(self).sizes.back().value == kPair;
  if (!has_dim || !has_pair || !IsFloating(context.Type(self).dtype)) {
    return InvalidArgument("a Fourier transform takes floating point numbers, or pairs of them in ",
                           "the last dimension, and a dimension from 0 on before that");
  }
  const int64_t n = context.Int(kFftN).value_or(0);
  const int64_t length = context.Int(kFftLength).value_or(0);
  if (n >= 1 && length >= 1) return absl::OkStatus();
  return InvalidArgument("a Fourier transform of ", n, " places with ", length,
                         " results must have at least one of both");
}

// The dimension that n places of a constant size are: that of the operand, or what its frequencies
// are those of; nullopt: n is a number.
std::optional<FactorDim> Transformed(const OpContext& context, bool is_half_spectrum) {
  const SymInt n = context.Sym(kFftN).value_or(SymInt(0));
  const FactorDim& from = context.Factors(context.Tensor(0))[context.Int(kFftDim).value_or(0)];
  const std::optional<FactorDim> dim =
      is_half_spectrum ? context.table().SpectrumOf(from) : std::optional(from);
  const bool is_dim = n.expr.empty() && dim && context.table().Size(*dim) == n.value;
  return is_dim ? dim : std::nullopt;
}

FactorDim LengthOf(OpContext& context, bool to_half_spectrum, bool is_half_spectrum) {
  const SymInt length = context.Sym(kFftLength).value_or(SymInt(0));
  const std::optional<FactorDim> dim = Transformed(context, is_half_spectrum);
  if (!length.expr.empty() || !dim) return FactorOfSize(context, length);
  const int64_t size = context.table().Size(*dim);
  if (to_half_spectrum && length.value == size / 2 + 1 && context.table().FollowsRoot(*dim)) {
    return context.table().NewSpectrum(*dim);
  }
  return length.value == size ? *dim : FactorOfSize(context, length);
}

absl::StatusOr<OpFactors> InferFourier(OpContext& context) {
  const bool is_c2r = context.node().op == kFftC2r;
  const bool is_r2c = context.node().op == kFftR2c;
  const absl::Status status = CheckCall(context, !is_r2c);
  if (!status.ok()) return status;
  OpFactors factors{.results = {context.Factors(context.Tensor(0))}};
  FactorDims& dims = factors.results[0];
  FactorDim& dim = dims[context.Int(kFftDim).value_or(0)];
  AppendFactors(dim, &factors.whole);
  dim = LengthOf(context, is_r2c, is_c2r && context.Bool(kFftFlag).value_or(false));
  AppendFactors(dim, &factors.whole);
  if (is_r2c) dims.push_back(FactorOfSize(context, SymInt(kPair)));
  AppendFactors(dims.back(), &factors.whole);
  if (is_c2r) dims.pop_back();
  return factors;
}

OpRule Fourier(std::string_view op) {
  return {.op = op,
          .infer = InferFourier,
          .derivative = Derivative::kExplicit,
          .linear = true,
          .workspace = FourierWorkspace};
}

}  // namespace

std::vector<OpRule> FourierRules() {
  return {Fourier(kFftC2c), Fourier(kFftC2r), Fourier(kFftR2c)};
}

}  // namespace autosp
