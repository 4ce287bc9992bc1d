// Convolutions.
#include "common/status_macros.h"
#include "compiler/rules/op_rule.h"
#include "compiler/rules/symbolic_argument.h"

namespace autosp {
namespace {

// A spatial dimension afterwards. One that keeps to its input by a constant (a causal convolution)
// stays recognisable; a stride makes a dimension of its own. What a kernel as long as the sequence
// leaves, the archive's expression says.
FactorDim ConvolvedDim(OpContext& context, const FactorDim& from, int64_t dim, int64_t stride) {
  const SymInt& size = context.ResultType().sizes[dim];
  const int64_t before = context.Type(context.Tensor(0)).sizes[dim].value;
  const bool is_symbolic = !context.Type(context.Tensor(1)).sizes[dim].expr.empty() ||
                           HasSymbols(context, 4) || HasSymbols(context, 5);
  if (!is_symbolic && stride == 1 && before > 1 && size.value > 1) {
    return context.table().NewDerived(from, size.value - before);
  }
  return FactorOfSize(context, size);
}

// conv(input [B, C, spatial...], weight [O, C / groups, kernel...], bias [O], stride, ...): the
// batch is parallel, channels and places are whole.
absl::StatusOr<OpFactors> InferConvolution(OpContext& context) {
  const FactorDims& input = context.Factors(context.Tensor(0));
  const FactorDims& weight = context.Factors(context.Tensor(1));
  if (input.size() != weight.size()) return InferOpaque(context);  // without a batch
  const std::vector<int64_t> strides = Values(context.Ints(3));
  OpFactors factors;
  FactorDims result = {input[0], weight[0]};
  AppendFactors(input[1], &factors.whole);
  for (const FactorDim& dim : weight) AppendFactors(dim, &factors.whole);
  for (size_t i = 2; i < input.size(); ++i) {
    AppendFactors(input[i], &factors.whole);
    const int64_t stride = strides.empty() ? 1 : strides[i - 2 < strides.size() ? i - 2 : 0];
    result.push_back(ConvolvedDim(context, input[i], static_cast<int64_t>(i), stride));
    AppendFactors(result.back(), &factors.whole);
  }
  if (const ValueId bias = context.Tensor(2); bias.valid()) {
    RETURN_IF_ERROR(context.table().Unify(weight[0], context.Factors(bias)[0]));
  }
  factors.results = {result};
  return factors;
}

// conv_transpose(input [B, C, spatial...], weight [C, O / groups, kernel...], bias [O], ...): the
// same, with the other dimension of the kernel first.
absl::StatusOr<OpFactors> InferTransposed(OpContext& context) {
  const FactorDims& input = context.Factors(context.Tensor(0));
  const FactorDims& weight = context.Factors(context.Tensor(1));
  if (input.size() != weight.size()) return InferOpaque(context);  // without a batch
  const TensorType& type = context.ResultType();
  const ValueId bias = context.Tensor(2);
  OpFactors factors;
  FactorDims result = {input[0]};
  result.push_back(bias.valid() ? context.Factors(bias)[0] : FactorOfSize(context, type.sizes[1]));
  for (size_t i = 2; i < input.size(); ++i) {
    result.push_back(FactorOfSize(context, type.sizes[i]));
  }
  for (const FactorDim& dim : weight) AppendFactors(dim, &factors.whole);
  for (size_t i = 1; i < input.size(); ++i) {
    AppendFactors(input[i], &factors.whole);
    AppendFactors(result[i], &factors.whole);
  }
  factors.results = {result};
  return factors;
}

OpRule Convolution(std::string_view op) {
  return {.op = op, .infer = InferConvolution, .flops = ConvolutionFlops};
}

OpRule Transposed(std::string_view op) {
  return {.op = op, .infer = InferTransposed, .flops = TransposedFlops};
}

}  // namespace

std::vector<OpRule> ConvolutionRules() {
  // Composite: the tape keeps what is between.
  return {Convolution("aten.conv1d.default"),          Convolution("aten.conv1d.padding"),
          Convolution("aten.conv2d.default"),          Convolution("aten.conv2d.padding"),
          Convolution("aten.conv3d.default"),          Convolution("aten.conv3d.padding"),
          Transposed("aten.conv_transpose1d.default"), Transposed("aten.conv_transpose2d.input"),
          Transposed("aten.conv_transpose3d.input")};
}

}  // namespace autosp
