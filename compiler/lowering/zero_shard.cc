#include "compiler/lowering/zero_shard.h"

#include <algorithm>
#include <functional>

#include "compiler/lowering/program_builder.h"

namespace autosp {
namespace {

// Every choice of device axes with more than one member, the largest groups first.
std::vector<AxisList> AxisChoices(const Mesh& mesh) {
  const AxisList all = NonTrivial(mesh, {kDeviceAxes.begin(), kDeviceAxes.end()});
  std::vector<AxisList> choices;
  for (size_t mask = (size_t{1} << all.size()) - 1; mask > 0; --mask) {
    AxisList axes;
    for (size_t i = 0; i < all.size(); ++i) {
      if ((mask >> i & 1) != 0) axes.push_back(all[i]);
    }
    choices.push_back(std::move(axes));
  }
  std::ranges::stable_sort(choices, std::greater<>(),
                           [&](const AxisList& axes) { return mesh.size(axes); });
  return choices;
}

}  // namespace

std::optional<ZeroShard> ChooseZeroShard(const Program& program,
                                         const std::vector<ProgramDim>& dims) {
  for (const AxisList& axes : AxisChoices(program.mesh)) {
    for (size_t dim = 0; dim < dims.size(); ++dim) {
      const int64_t size = program.LocalSize(dims[dim]);
      if (size > 0 && size % program.mesh.size(axes) == 0) return ZeroShard{dim, axes};
    }
  }
  return std::nullopt;
}

std::vector<ProgramDim> ShardedDims(std::vector<ProgramDim> dims, const ZeroShard& shard) {
  dims[shard.dim].front().axes = shard.axes;
  return dims;
}

}  // namespace autosp
