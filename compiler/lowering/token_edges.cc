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

int64_t WindowWorkspaceBytes(const Program& program, ValueId tokens) {
  return 2 * program.LocalBytes(program.value(tokens));
}

}  // namespace autosp
