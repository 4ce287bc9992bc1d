#include "compiler/lowering/token_edges.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/check.h"
#include "compiler/program/token_stretches.h"

namespace autosp {

Argument GatherEdges(ProgramBuilder& builder, ValueId tokens, int64_t dim, int64_t before,
                     int64_t after) {
  const auto stretches = TokenStretchesOf(builder.program(), builder.value(tokens).dims[dim]);
  AUTOSP_CHECK(stretches, "%", builder.value(tokens).name, " is not split by tokens");
  if (!stretches->is_split() || before + after == 0) return None{};
  ProgramValue type = builder.Like(tokens);
  type.dims[dim] = {{.factor = {},
                     .size = stretches->num_stretches() * (before + after),
                     .axes = stretches->axes}};
  std::vector<ProgramDim> gathered = type.dims;
  gathered[dim][0].axes.clear();
  const ValueId edges = builder.Call(
      "autosp.shard_edges", {tokens, SymInt(dim), SymInt(before), SymInt(after)}, std::move(type));
  return builder.AllGather(edges, dim, stretches->axes, std::move(gathered));
}

namespace {

constexpr int64_t kConvTokens = 2;  // the dimension of tokens in a convolution

// Tokens that are split in another way lie whole on each rank here.
TokenStretches StretchesOf(const Program& program, ValueId tokens, int64_t dim) {
  return TokenStretchesOf(program, program.value(tokens).dims[dim]).value_or(TokenStretches());
}

// Of a stretch with `window` further tokens.
int64_t StretchBytes(const Program& program, ValueId tokens, int64_t dim, int64_t window) {
  const ProgramValue& value = program.value(tokens);
  const int64_t bytes = program.LocalBytes(value);
  const int64_t of_token = bytes / std::max<int64_t>(1, program.LocalSizes(value)[dim]);
  return bytes / StretchesOf(program, tokens, dim).per_shard + window * of_token;
}

}  // namespace

int64_t ShiftWorkspaceBytes(const Program& program, ValueId tokens, int64_t dim, int64_t window,
                            ValueId result) {
  const int64_t parts = StretchesOf(program, tokens, dim).per_shard > 1
                            ? program.LocalBytes(program.value(result))
                            : 0;
  return parts + StretchBytes(program, tokens, dim, window);
}

int64_t ConvWorkspaceBytes(const Program& program, ValueId tokens, int64_t window, ValueId result) {
  const int64_t at_a_stretch = StretchBytes(program, tokens, kConvTokens, window) +
                               StretchBytes(program, result, kConvTokens, 0);
  return std::max(at_a_stretch, ShiftWorkspaceBytes(program, tokens, kConvTokens, window, result));
}

int64_t WeightGradWorkspaceBytes(const Program& program, ValueId tokens, int64_t window,
                                 ValueId grad, ValueId weight) {
  const std::vector<int64_t> sizes = program.LocalSizes(program.value(weight));
  const bool is_apart = sizes[1] == 1 && sizes[0] == program.LocalSizes(program.value(tokens))[1];
  const int64_t of_tokens = StretchBytes(program, tokens, kConvTokens, window);
  const int64_t of_grad = StretchBytes(program, grad, kConvTokens, 0);
  if (is_apart) return of_tokens + 2 * of_grad;
  const TokenStretches stretches = StretchesOf(program, tokens, kConvTokens);
  const int64_t num_grads = stretches.is_split() ? 3 : 2;  // whole ones are used in place
  return 2 * of_tokens + num_grads * of_grad +
         stretches.per_shard * program.LocalBytes(program.value(weight));
}

}  // namespace autosp
