// Floating point operations of one call of an op, on the sizes that it is called with.
//
// The convention is that of torch.utils.flop_counter, so that numbers compare with those of others:
// a multiplication and the addition after it are two operations; products of matrices, convolutions
// and attention count, and everything else (elementwise ops, sums, norms, products with a vector)
// counts as nothing beside them. The derivative of attention computes its scores once more, as its
// kernels do, so that it is five products. It departs from the counter in two places:
//
//   attention               pairs of query and key that causal order or a window rules out are not
//                           computed by the kernels, and not counted. Documents and padded keys
//                           are data, which no plan knows: their pairs count.
//   grouped convolutions    the gradient of the weight is as much work as the result. The counter
//                           takes each output channel with all input channels.
#pragma once

#include <cstdint>
#include <vector>

#include "compiler/ir/graph.h"

namespace autosp {

enum class FlopKind : uint8_t { kProduct, kConvolution, kAttention };

struct OpFlops {
  FlopKind kind = FlopKind::kProduct;
  double forward = 0;
  double backward = 0;  // of the gradients that are wanted
};

// One call, on one rank. Operands are the tensors, in argument order.
struct OpCall {
  const std::vector<Argument>& args;
  std::vector<std::vector<int64_t>> operands = {};
  std::vector<bool> needs_grad = {};  // of each operand
  std::vector<std::vector<int64_t>> results = {};
};

// In a row of compiler/rules. Requires: an op and operands as ATen takes them.
using FlopsFn = OpFlops (*)(const OpCall& call);

// Of a node on the whole job's sizes, with the gradients of all operands.
OpFlops FlopsOf(const Graph& graph, const Node& node);

// Pairs of query i and key j, of so many of each, with j <= i if `causal`; and where window > 0,
// i - j < window, and also j - i < window if not causal.
double AttendedPairs(int64_t q_len, int64_t k_len, bool causal, int64_t window);

// Of attention on q [..., N, Sq, H], k [..., K, Sk, H] and v [..., K, Sk, Hv], where each head of
// each batch element computes so many pairs.
OpFlops AttentionFlops(const std::vector<int64_t>& q, const std::vector<int64_t>& v, double pairs);

// Each place of the result sums over its kernel, in the channels of its group; so does each
// gradient.
OpFlops ConvolutionFlops(const OpCall& call);
// Transposed: each place of the operand is spread over its kernel.
OpFlops TransposedFlops(const OpCall& call);

// einsum(equation, operands), which multiplies two operands at a time, from the left.
OpFlops EinsumFlops(const OpCall& call);

}  // namespace autosp
