// Shifts and convolutions over tokens (token_window.h).
#include <algorithm>

#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/rules/op_rule.h"
#include "compiler/rules/token_window.h"

namespace autosp {
namespace {

void AddTokens(const FactorDim& tokens, OpFactors* factors) {
  AppendFactors(tokens, &factors->whole);
  AppendFactors(tokens, &factors->halo);
}

absl::StatusOr<OpFactors> InferTokenShift(OpContext& context) {
  const ValueId self = context.Tensor(0);
  OpFactors factors{.results = {context.Factors(self)}};
  AddTokens(factors.results[0][context.Dim(1, context.Rank(self))], &factors);
  return factors;
}

absl::StatusOr<OpFactors> InferAllTokens(OpContext& context) {
  const ValueId self = context.Tensor(0);
  OpFactors factors{.results = {context.Factors(self)}};
  FactorDim& tokens = factors.results[0][context.Dim(1, context.Rank(self))];
  AppendFactors(tokens, &factors.whole);
  tokens = {context.table().NewFactor(context.table().Size(tokens))};
  return factors;
}

// A channel that depends on one channel alone is parallel; so are the results of a dense
// convolution, each of which reads all channels.
absl::StatusOr<OpFactors> InferTokenConv(OpContext& context) {
  const ValueId weight_id = context.Tensor(1);
  const FactorDims& input = context.Factors(context.Tensor(0));
  const FactorDims& weight = context.Factors(weight_id);
  const int64_t channels = context.Type(context.Tensor(0)).sizes[1].value;
  const std::vector<int64_t> sizes = Values(context.Type(weight_id).sizes);
  OpFactors factors{.results = {{input[0], weight[0], input[2]}}};
  if (sizes[0] == channels && sizes[1] == 1) {
    RETURN_IF_ERROR(context.table().Unify(input[1], weight[0]));
  } else if (sizes[1] == channels) {
    RETURN_IF_ERROR(context.table().Unify(input[1], weight[1]));
    AppendFactors(input[1], &factors.whole);
  } else {
    for (const FactorDim& dim : {input[1], weight[0], weight[1]}) {
      AppendFactors(dim, &factors.whole);
    }
  }
  AppendFactors(weight[2], &factors.whole);
  AddTokens(input[2], &factors);
  if (const ValueId bias = context.Tensor(2); bias.valid()) {
    RETURN_IF_ERROR(context.table().Unify(weight[0], context.Factors(bias)[0]));
  }
  return factors;
}

}  // namespace

std::optional<TokenWindow> TokenWindowOf(const Graph& graph, const Node& node) {
  const auto integer = [&](size_t arg) { return IntegerArgument(node.args, arg).value_or(0); };
  if (node.op == kTokenShift) {
    const int64_t by = integer(2);
    return TokenWindow{.dim = integer(1),
                       .before = std::max<int64_t>(by, 0),
                       .after = std::max<int64_t>(-by, 0),
                       .wraps = integer(3) != 0};
  }
  if (node.op != kTokenConv) return std::nullopt;
  const int64_t taps = graph.type(TensorArgument(node.args, 1)).sizes[2].value;
  return TokenWindow{.dim = 2, .before = integer(3), .after = (taps - 1) * integer(4) - integer(3)};
}

std::vector<OpRule> TokenWindowRules() {
  return {{.op = kAllTokens,
           .infer = InferAllTokens,
           .derivative = Derivative::kExplicit,
           .linear = true},
          {.op = kTokenShift, .infer = InferTokenShift, .derivative = Derivative::kExplicit},
          {.op = kTokenConv,
           .infer = InferTokenConv,
           .derivative = Derivative::kExplicit,
           .flops = ConvolutionFlops}};
}

}  // namespace autosp
