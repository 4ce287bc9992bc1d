#include "compiler/rules/op_flops.h"

#include <algorithm>

#include "compiler/ir/type_text.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

// The sum of clamp(i + shift, 0, limit) over i in [0, count).
double SumOfClamped(int64_t count, int64_t shift, int64_t limit) {
  const int64_t begin = std::clamp<int64_t>(-shift, 0, count);           // zero before
  const int64_t end = std::clamp<int64_t>(limit - shift, begin, count);  // `limit` from here
  const auto num_rising = static_cast<double>(end - begin);
  const auto first = static_cast<double>(begin + shift);
  const auto last = static_cast<double>(end - 1 + shift);
  return num_rising * (first + last) / 2 +
         static_cast<double>(count - end) * static_cast<double>(limit);
}

}  // namespace

OpFlops FlopsOf(const Graph& graph, const Node& node) {
  const OpRule* rule = FindOpRule(node.op);
  if (rule == nullptr || rule->flops == nullptr) return {};
  OpCall call{.args = node.args};
  for (ValueId id : OperandsOf(node)) call.operands.push_back(SizeValues(graph.type(id)));
  for (ValueId id : node.outputs) call.results.push_back(SizeValues(graph.type(id)));
  call.needs_grad.assign(call.operands.size(), true);
  return rule->flops(call);
}

double AttendedPairs(int64_t q_len, int64_t k_len, bool causal, int64_t window) {
  // Keys before the first that is out of reach ahead, less those that are out of reach behind.
  double pairs = static_cast<double>(q_len) * static_cast<double>(k_len);
  if (causal) {
    pairs = SumOfClamped(q_len, 1, k_len);
  } else if (window > 0) {
    pairs = SumOfClamped(q_len, window, k_len);
  }
  return window > 0 ? pairs - SumOfClamped(q_len, 1 - window, k_len) : pairs;
}

namespace {

OpFlops OfConvolution(const OpCall& call, const std::vector<int64_t>& places) {
  const std::vector<int64_t>& weight = call.operands[1];
  double flops = 2;
  for (int64_t size : places) flops *= static_cast<double>(size);
  for (size_t i = 1; i < weight.size(); ++i) flops *= static_cast<double>(weight[i]);
  const int num_gradients = call.needs_grad[0] + call.needs_grad[1];
  return {.kind = FlopKind::kConvolution, .forward = flops, .backward = num_gradients * flops};
}

}  // namespace

OpFlops ConvolutionFlops(const OpCall& call) { return OfConvolution(call, call.results[0]); }
OpFlops TransposedFlops(const OpCall& call) { return OfConvolution(call, call.operands[0]); }

OpFlops AttentionFlops(const std::vector<int64_t>& q, const std::vector<int64_t>& v, double pairs) {
  for (size_t i = 0; i + 2 < q.size(); ++i) pairs *= static_cast<double>(q[i]);
  // One product over the columns of q and k each, or over those of v.
  const double of_key = 2 * pairs * static_cast<double>(q.back());
  const double of_value = 2 * pairs * static_cast<double>(v.back());
  // Backward: the scores and their gradient, and the gradients of v, q and k.
  return {.kind = FlopKind::kAttention,
          .forward = of_key + of_value,
          .backward = 3 * of_key + 2 * of_value};
}

}  // namespace autosp
