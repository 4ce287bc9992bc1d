#include "compiler/program/split_dim.h"

#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {

absl::StatusOr<std::optional<SplitDim>> SplitDimOf(const Program& program,
                                                   const ProgramValue& value) {
  std::optional<SplitDim> split;
  for (size_t i = 0; i < value.dims.size(); ++i) {
    for (const DimFactor& factor : value.dims[i]) {
      if (factor.axes.empty()) continue;
      // Of several factors or with padding, the parts would be no boxes of equal size.
      const bool is_even = value.dims[i].size() == 1 && !factor.factor.valid() && !factor.padded &&
                           factor.size % program.mesh.size(factor.axes) == 0;
      if (split || !is_even) {
        return Unimplemented("%", value.name, " is split over ", AxisListName(factor.axes),
                             " into what is no equal part along one dimension");
      }
      split = {.dim = static_cast<int64_t>(i), .axes = factor.axes};
    }
  }
  return split;
}

absl::StatusOr<TensorBox> HeldBox(const Program& program, const ProgramValue& value,
                                  const MeshCoordinate& place) {
  ASSIGN_OR_RETURN(const std::optional<SplitDim> split, SplitDimOf(program, value));
  TensorBox box{.offset = std::vector<int64_t>(value.dims.size(), 0),
                .shape = program.LocalSizes(value)};
  if (split) {
    box.offset[split->dim] = place.index(split->axes, program.mesh) * box.shape[split->dim];
  }
  return box;
}

absl::StatusOr<std::vector<int64_t>> WholeShape(const Program& program, const ProgramValue& value) {
  ASSIGN_OR_RETURN(const std::optional<SplitDim> split, SplitDimOf(program, value));
  std::vector<int64_t> shape = program.LocalSizes(value);
  if (split) shape[split->dim] *= program.mesh.size(split->axes);
  return shape;
}

}  // namespace autosp
