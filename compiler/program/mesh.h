// The device mesh of a program and the place of one rank in it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace autosp {

// Mesh axes, outermost first. `sp` is ring x ulysses. `accum` and `tile` are no device axes, but
// loops: accum over the micro-steps of one optimizer step, which splits the batch in time as dp
// splits it in space; tile over parts of a rank's sequence. A sum over them is an accumulation.
enum class Axis : uint8_t { kAccum, kDp, kRing, kUlysses, kTile };
inline constexpr std::array kAllAxes = {Axis::kAccum, Axis::kDp, Axis::kRing, Axis::kUlysses,
                                        Axis::kTile};
// Those over which the sum of a step goes: a loop over tiles completes its own sums.
inline constexpr std::array kStepAxes = {Axis::kAccum, Axis::kDp, Axis::kRing, Axis::kUlysses};
inline constexpr std::array kLoopAxes = {Axis::kAccum, Axis::kTile};
inline constexpr std::array kDeviceAxes = {Axis::kDp, Axis::kRing, Axis::kUlysses};

std::string_view AxisName(Axis axis);  // "accum", "dp", "ring", "ulysses", "tile"
std::optional<Axis> AxisFromName(std::string_view name);

// A set of axes, kept in the order of `Axis`; the last one varies fastest.
using AxisList = std::vector<Axis>;
std::string AxisListName(const AxisList& axes);  // "dp+ulysses"

struct Mesh {
  int64_t accum = 1;
  int64_t dp = 1;
  int64_t ring = 1;
  int64_t ulysses = 1;
  int64_t tile = 1;

  int64_t size(Axis axis) const;
  int64_t size(const AxisList& axes) const;  // product
  int64_t sp() const { return ring * ulysses; }
  int64_t world_size() const { return dp * ring * ulysses; }
  friend bool operator==(const Mesh&, const Mesh&) = default;
};

// rank = (dp * ring_size + ring) * ulysses_size + ulysses, so that ulysses peers are neighbours.
struct MeshCoordinate {
  int64_t dp = 0;
  int64_t ring = 0;
  int64_t ulysses = 0;
  int64_t index(Axis axis) const;  // accum, tile: 0
  // Place within the group spanned by `axes` (last fastest).
  int64_t index(const AxisList& axes, const Mesh& mesh) const;
};
MeshCoordinate CoordinateOf(const Mesh& mesh, int64_t rank);
// The global ranks of the group along `axes` that contains `rank`, in group order.
std::vector<int64_t> GroupOf(const Mesh& mesh, const AxisList& axes, int64_t rank);

}  // namespace autosp
