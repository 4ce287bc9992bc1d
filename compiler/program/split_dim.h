// How a value that outlives a step is divided over ranks: equal parts along one dimension.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/program/program.h"

namespace autosp {

struct SplitDim {
  int64_t dim = 0;
  AxisList axes;  // the part of a rank is that of its place in their group
};

// nullopt: whole on every rank. Error: divided in another way.
absl::StatusOr<std::optional<SplitDim>> SplitDimOf(const Program& program,
                                                   const ProgramValue& value);

// A box of the whole tensor.
struct TensorBox {
  std::vector<int64_t> offset;
  std::vector<int64_t> shape;
  friend bool operator==(const TensorBox&, const TensorBox&) = default;
};

// What the rank at `place` holds of a value.
absl::StatusOr<TensorBox> HeldBox(const Program& program, const ProgramValue& value,
                                  const MeshCoordinate& place);

// The shape of the whole.
absl::StatusOr<std::vector<int64_t>> WholeShape(const Program& program, const ProgramValue& value);

}  // namespace autosp
