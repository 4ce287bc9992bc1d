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

int64_t NumStretches(const Program& program, ValueId tokens, int64_t dim) {
  const auto stretches = TokenStretchesOf(program, program.value(tokens).dims[dim]);
  return stretches ? stretches->per_shard : 1;
}

// Of a stretch with `window` further tokens.
int64_t StretchBytes(const Program& program, ValueId tokens, int64_t dim, int64_t window) {
  const ProgramValue& value = program.value(tokens);
  const int64_t bytes = program.LocalBytes(value);
  const int64_t of_token = bytes / std::max<int64_t>(1, program.LocalSizes(value)[dim]);
  return bytes / NumStretches(program, tokens, dim) + window * of_token;
}

}  // namespace

int64_t ShiftWorkspaceBytes(const Program& program, ValueId tokens, int64_t dim, int64_t window,
                            ValueId result) {
  const int64_t parts =
      NumStretches(program, tokens, dim) > 1 ? program.LocalBytes(program.value(result)) : 0;
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
  const auto stretches = TokenStretchesOf(program, program.value(tokens).dims[kConvTokens]);
  const bool is_split = stretches && stretches->is_split();  // else the gradients are used in place
  return 2 * of_tokens + (is_split ? 3 : 2) * of_grad +
         NumStretches(program, tokens, kConvTokens) * program.LocalBytes(program.value(weight));
}

}  // namespace autosp
