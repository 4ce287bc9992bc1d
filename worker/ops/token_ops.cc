// Shifts and convolutions over tokens, on the tokens of one rank and the edges of its neighbours'
// (compiler/rules/token_window.h, compiler/lowering/token_edges.h). Padding reads as zero, whatever
// it holds.
#include <ATen/TensorOperators.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/stack.h>

#include <array>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/ops/token_windows.h"

namespace autosp {
namespace {

constexpr int64_t kTokens = 2;  // of [batch, channels, tokens]

const at::Tensor& TensorOrNone(const OwnCall& call, size_t arg) {
  static const at::Tensor& none = *new at::Tensor();
  return call.args[arg].empty() ? none : call.args[arg][0];
}

// Edges are given where tokens beyond those of the rank are looked at, and only there.
absl::Status CheckEdges(const OwnOpContext& context, const TokenNeighbors& neighbors,
                        size_t edges) {
  if (neighbors.needs_edges() != IsNone(context.instruction.args[edges])) return absl::OkStatus();
  return InvalidArgument(context.instruction.op, ": argument ", edges, ", the edges, must be ",
                         neighbors.needs_edges() ? "given, as its tokens are split over ranks"
                                                 : "none, as it looks beyond no edge of a shard");
}

// A convolution of one dimension, as its instruction says.
struct Conv {
  TokenNeighbors neighbors;
  int64_t dilation = 1;
  int64_t reach = 0;  // (taps - 1) * dilation
};

// Arguments from `edges` on: edges, before, dilation. Of a gradient, which depends on what is
// behind, the window is turned.
absl::StatusOr<Conv> MakeConv(const OwnOpContext& context, size_t tokens, ValueId weight,
                              size_t edges, bool is_turned) {
  const Instruction& instruction = context.instruction;
  ASSIGN_OR_RETURN(const int64_t before, IntArgument(instruction, edges + 1));
  ASSIGN_OR_RETURN(const int64_t dilation, IntArgument(instruction, edges + 2));
  const std::vector<int64_t> sizes = context.program.LocalSizes(context.program.value(weight));
  if (sizes.size() != 3 || dilation < 1) {
    return InvalidArgument(instruction.op, ": a weight of ", sizes.size(),
                           " dimensions with dilation ", dilation,
                           " must have 3 dimensions and a dilation of at least 1");
  }
  const int64_t reach = (sizes[kTokens] - 1) * dilation;
  TokenNeighbors::Window window{.before = before, .after = reach - before};
  if (is_turned) std::swap(window.before, window.after);
  ASSIGN_OR_RETURN(
      TokenNeighbors neighbors,
      TokenNeighbors::Make(context, std::get<ValueId>(instruction.args[tokens]), kTokens, window));
  RETURN_IF_ERROR(CheckEdges(context, neighbors, edges));
  return Conv{std::move(neighbors), dilation, reach};
}

int64_t NumGroups(const at::Tensor& input, int64_t channels_of_group) {
  return input.size(1) / channels_of_group;
}

// What brings gradients of results back to their tokens: taps in reverse, and within each group
// results [O / groups] for channels [C / groups].
at::Tensor Turned(const at::Tensor& weight, int64_t groups) {
  return weight.unflatten(0, {groups, -1}).transpose(1, 2).flatten(0, 1).flip({2});
}

at::Tensor WeightGrad(const at::Tensor& grad, const at::Tensor& input,
                      const std::vector<int64_t>& sizes, int64_t dilation) {
  const at::Tensor weight = input.new_empty(sizes);  // of which only the sizes are read
  return std::get<1>(at::convolution_backward(
      grad, input, weight, at::OptionalIntArrayRef(), {1}, {0}, {dilation}, /*transposed=*/false,
      {0}, NumGroups(input, sizes[1]), std::array<bool, 3>{false, true, false}));
}

// Each channel by itself, one product for each tap: on CPUs ATen takes three times as long.
at::Tensor WeightGradOfChannels(const at::Tensor& grad, const at::Tensor& input,
                                const std::vector<int64_t>& sizes, int64_t dilation) {
  std::vector<at::Tensor> taps;
  for (int64_t tap = 0; tap < sizes[2]; ++tap) {
    const at::Tensor read = input.narrow(kTokens, tap * dilation, grad.size(kTokens));
    taps.push_back((grad * read).sum(at::IntArrayRef({0, kTokens})));
  }
  return at::stack(taps, 1).unsqueeze(1);
}

}  // namespace

// (x, dim, before, after) -> of each stretch of x its last `before` tokens and its first `after`
absl::StatusOr<OwnOp> MakeShardEdges(const OwnOpContext& context) {
  const Instruction& instruction = context.instruction;
  RETURN_IF_ERROR(CheckArity(instruction, 4, 1));
  ASSIGN_OR_RETURN(const int64_t dim, IntArgument(instruction, 1));
  ASSIGN_OR_RETURN(const int64_t before, IntArgument(instruction, 2));
  ASSIGN_OR_RETURN(const int64_t after, IntArgument(instruction, 3));
  ASSIGN_OR_RETURN(const TokenNeighbors neighbors,
                   TokenNeighbors::Make(context, OperandsOf(instruction).at(0), dim,
                                        {.before = before, .after = after}));
  return [neighbors](const OwnCall& call) {
    call.results = {neighbors.Edges(call.args[0][0])};
    return absl::OkStatus();
  };
}

// (x, edges, dim, by, wraps) {pad} -> y[t] = x[t - by], `pad` in padding
absl::StatusOr<OwnOp> MakeTokenShift(const OwnOpContext& context) {
  const Instruction& instruction = context.instruction;
  RETURN_IF_ERROR(CheckArity(instruction, 5, 1));
  ASSIGN_OR_RETURN(const int64_t dim, IntArgument(instruction, 2));
  ASSIGN_OR_RETURN(const int64_t by, IntArgument(instruction, 3));
  ASSIGN_OR_RETURN(const int64_t pad, IntAttribute(instruction, "pad"));
  const auto* wraps = std::get_if<bool>(&instruction.args[4]);
  if (wraps == nullptr) return InvalidArgument(instruction.op, ": argument 4 must be a boolean");
  const TokenNeighbors::Window window{
      .before = std::max<int64_t>(by, 0), .after = std::max<int64_t>(-by, 0), .wraps = *wraps};
  ASSIGN_OR_RETURN(
      const TokenNeighbors neighbors,
      TokenNeighbors::Make(context, std::get<ValueId>(instruction.args[0]), dim, window));
  RETURN_IF_ERROR(CheckEdges(context, neighbors, 1));
  return [neighbors, pad, begin = window.after](const OwnCall& call) {
    // Of tokens with those before or behind them, a shift back drops the last, one ahead the first.
    std::vector<at::Tensor> parts;
    for (int64_t i = 0; i < neighbors.num_local(); ++i) {
      parts.push_back(neighbors.Extended(call.args[0][0], TensorOrNone(call, 1), i)
                          .narrow(neighbors.dim(), begin, neighbors.length()));
    }
    call.results = {neighbors.Joined(parts, static_cast<double>(pad))};
    return absl::OkStatus();
  };
}

// (x, weight, bias, edges, before, dilation) {pad} -> the convolution, `pad` in padding
absl::StatusOr<OwnOp> MakeTokenConv(const OwnOpContext& context) {
  const Instruction& instruction = context.instruction;
  RETURN_IF_ERROR(CheckArity(instruction, 6, 1));
  ASSIGN_OR_RETURN(const int64_t pad, IntAttribute(instruction, "pad"));
  ASSIGN_OR_RETURN(const Conv conv,
                   MakeConv(context, 0, OperandsOf(instruction).at(1), 3, /*is_turned=*/false));
  return [conv, pad](const OwnCall& call) {
    const at::Tensor& weight = call.args[1][0];
    const at::Tensor& bias = TensorOrNone(call, 2);
    std::vector<at::Tensor> parts;
    for (int64_t i = 0; i < conv.neighbors.num_local(); ++i) {
      const at::Tensor input = conv.neighbors.Extended(call.args[0][0], TensorOrNone(call, 3), i);
      parts.push_back(at::conv1d(input, weight, bias.defined() ? std::optional(bias) : std::nullopt,
                                 {1}, at::IntArrayRef({0}), {conv.dilation},
                                 NumGroups(input, weight.size(1))));
    }
    call.results = {conv.neighbors.Joined(parts, static_cast<double>(pad))};
    return absl::OkStatus();
  };
}

// (gradient, weight, edges of the gradient, before, dilation) -> of the input; zero in padding
absl::StatusOr<OwnOp> MakeTokenConvInputGrad(const OwnOpContext& context) {
  const Instruction& instruction = context.instruction;
  RETURN_IF_ERROR(CheckArity(instruction, 5, 1));
  ASSIGN_OR_RETURN(const Conv conv,
                   MakeConv(context, 0, OperandsOf(instruction).at(1), 2, /*is_turned=*/true));
  const ValueId result = instruction.results[0];
  const int64_t channels = context.program.LocalSizes(context.program.value(result))[1];
  return [conv, channels](const OwnCall& call) {
    const at::Tensor& weight = call.args[1][0];
    const int64_t groups = channels / weight.size(1);
    const at::Tensor turned = Turned(weight, groups);
    std::vector<at::Tensor> parts;
    for (int64_t i = 0; i < conv.neighbors.num_local(); ++i) {
      const at::Tensor grad = conv.neighbors.Extended(call.args[0][0], TensorOrNone(call, 2), i);
      parts.push_back(at::conv1d(grad, turned, std::nullopt, {1}, at::IntArrayRef({0}),
                                 {conv.dilation}, groups));
    }
    call.results = {conv.neighbors.Joined(parts, 0)};
    return absl::OkStatus();
  };
}

// (gradient, x, edges of x, before, dilation) -> of the weight; padding has no part in it
absl::StatusOr<OwnOp> MakeTokenConvWeightGrad(const OwnOpContext& context) {
  const Instruction& instruction = context.instruction;
  RETURN_IF_ERROR(CheckArity(instruction, 5, 1));
  const ValueId result = instruction.results[0];
  ASSIGN_OR_RETURN(const Conv conv, MakeConv(context, 1, result, 2, /*is_turned=*/false));
  const std::vector<int64_t> sizes = context.program.LocalSizes(context.program.value(result));
  return [conv, sizes](const OwnCall& call) {
    at::Tensor sum;
    for (int64_t i = 0; i < conv.neighbors.num_local(); ++i) {
      const at::Tensor input = conv.neighbors.Extended(call.args[1][0], TensorOrNone(call, 2), i);
      const at::Tensor grad = conv.neighbors.Valid(call.args[0][0], i).contiguous();
      const bool is_apart = sizes[1] == 1 && sizes[0] == input.size(1);
      const at::Tensor part = is_apart ? WeightGradOfChannels(grad, input, sizes, conv.dilation)
                                       : WeightGrad(grad, input, sizes, conv.dilation);
      sum = sum.defined() ? sum + part : part;
    }
    call.results = {sum.contiguous()};
    return absl::OkStatus();
  };
}

}  // namespace autosp
