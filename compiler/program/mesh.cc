#include "compiler/program/mesh.h"

namespace autosp {

std::string_view AxisName(Axis axis) {
  switch (axis) {
    case Axis::kAccum:
      return "accum";
    case Axis::kDp:
      return "dp";
    case Axis::kRing:
      return "ring";
    case Axis::kUlysses:
      return "ulysses";
    case Axis::kTile:
      return "tile";
  }
  return "?";
}

std::optional<Axis> AxisFromName(std::string_view name) {
  for (Axis axis : kAllAxes) {
    if (AxisName(axis) == name) return axis;
  }
  return std::nullopt;
}

std::string AxisListName(const AxisList& axes) {
  std::string name;
  for (Axis axis : axes) {
    if (!name.empty()) name += '+';
    name += AxisName(axis);
  }
  return name;
}

int64_t Mesh::size(Axis axis) const {
  switch (axis) {
    case Axis::kAccum:
      return accum;
    case Axis::kDp:
      return dp;
    case Axis::kRing:
      return ring;
    case Axis::kUlysses:
      return ulysses;
    case Axis::kTile:
      return tile;
  }
  return 1;
}

int64_t Mesh::size(const AxisList& axes) const {
  int64_t product = 1;
  for (Axis axis : axes) product *= size(axis);
  return product;
}

int64_t MeshCoordinate::index(Axis axis) const {
  switch (axis) {
    case Axis::kAccum:
    case Axis::kTile:
      return 0;
    case Axis::kDp:
      return dp;
    case Axis::kRing:
      return ring;
    case Axis::kUlysses:
      return ulysses;
  }
  return 0;
}

int64_t MeshCoordinate::index(const AxisList& axes, const Mesh& mesh) const {
  int64_t place = 0;
  for (Axis axis : axes) place = place * mesh.size(axis) + index(axis);
  return place;
}

MeshCoordinate CoordinateOf(const Mesh& mesh, int64_t rank) {
  return {.dp = rank / mesh.sp(),
          .ring = rank / mesh.ulysses % mesh.ring,
          .ulysses = rank % mesh.ulysses};
}

namespace {

// How far apart in rank two neighbours on an axis of devices are.
int64_t StrideOf(const Mesh& mesh, Axis axis) {
  if (axis == Axis::kUlysses) return 1;
  return axis == Axis::kRing ? mesh.ulysses : mesh.sp();
}

}  // namespace

std::vector<int64_t> GroupOf(const Mesh& mesh, const AxisList& axes, int64_t rank) {
  const MeshCoordinate self = CoordinateOf(mesh, rank);
  std::vector<int64_t> group = {rank};
  for (Axis axis : axes) {
    if (axis == Axis::kAccum) continue;
    const int64_t stride = StrideOf(mesh, axis);
    std::vector<int64_t> wider;
    wider.reserve(group.size() * mesh.size(axis));
    for (int64_t member : group) {
      const int64_t first = member - self.index(axis) * stride;
      for (int64_t i = 0; i < mesh.size(axis); ++i) wider.push_back(first + i * stride);
    }
    group = std::move(wider);
  }
  return group;
}

}  // namespace autosp
