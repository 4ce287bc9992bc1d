#include "compiler/lowering/token_edges.h"

#include <utility>

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

int64_t NumStretches(const Program& program, ValueId tokens, int64_t dim) {
  const auto stretches = TokenStretchesOf(program, program.value(tokens).dims[dim]);
  return stretches ? stretches->per_shard : 1;
}

}  // namespace

int64_t WindowWorkspaceBytes(const Program& program, ValueId tokens, int64_t dim, ValueId result) {
  const int64_t stretches = NumStretches(program, tokens, dim);
  const int64_t parts = stretches > 1 ? program.LocalBytes(program.value(result)) : 0;
  return parts + program.LocalBytes(program.value(tokens)) / stretches;
}

int64_t WeightGradWorkspaceBytes(const Program& program, ValueId tokens, int64_t dim,
                                 ValueId grad) {
  return (program.LocalBytes(program.value(tokens)) + 2 * program.LocalBytes(program.value(grad))) /
         NumStretches(program, tokens, dim);
}

}  // namespace autosp
