// Ops of our own in which a token depends on its neighbours, and that keep the number of tokens
// (recognize-windows):
//
//   autosp.token_shift(x, dim, by, wraps)
//     y[t] = x[t - by]; beyond the ends zeros or, where it wraps, the tokens of the other end
//   autosp.token_conv(x, weight, bias, before, dilation)
//     x [B, C, S], weight [O, C / groups, K], bias [O] or none
//     y[t] = bias + sum over k of weight[k] x[t - before + k * dilation]; beyond the ends zeros
//
// Whole tokens need no more than these. Ranks that hold a shard of the tokens also need those at
// the border of their neighbours' shards (lowering/token_edges.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "compiler/ir/graph.h"

namespace autosp {

inline constexpr std::string_view kTokenShift = "autosp.token_shift";
inline constexpr std::string_view kTokenConv = "autosp.token_conv";

// Which tokens a token of the result depends on: from `before` before it to `after` behind it.
struct TokenWindow {
  int64_t dim = 0;  // of the tokens
  int64_t before = 0;
  int64_t after = 0;
  bool wraps = false;
};

// nullopt: none of the ops above.
std::optional<TokenWindow> TokenWindowOf(const Graph& graph, const Node& node);

}  // namespace autosp
