// How a dimension lies on the mesh, as digits: a normal form in which equal placements are equal,
// whatever factors of the program name them.
//
//   seq@ulysses of 8 over 2 ranks   =  ulysses:2, 4       the rank gives the upper digit of the
//   index split2@ulysses*4                =  ulysses:2, 8       so may heads, whoever split them
//   batch@dp*seq@ulysses            =  dp:2, 1, ulysses:2, 4
//   seq@ulysses of 7                =  one digit: shards of 4 with one element of padding at the
//   end pad(seq@ulysses) of 7           =  one digit: the two shards side by side, padding included
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "compiler/checker/index_layout.h"
#include "compiler/program/program.h"

namespace autosp::checker {

// Names a kind of padding: positions of a factor from `size` up to `padded_size`, all shards
// together.
struct PadKey {
  int64_t size = 0;
  int64_t padded_size = 0;
  Layout layout = Layout::kContiguous;
  friend auto operator<=>(const PadKey&, const PadKey&) = default;
};

struct Digit {
  enum class Kind : uint8_t { kWhole, kShard, kPaddedShard, kPaddedWhole };
  Kind kind = Kind::kWhole;
  int64_t size = 1;       // logical; of a shard: the members of the axis
  Axis axis = Axis::kDp;  // kShard
  AxisList axes = {};     // the padded kinds
  PadKey pad = {};
  int64_t local_size = 1;  // elements on one rank
  bool is_padded() const { return kind == Kind::kPaddedShard || kind == Kind::kPaddedWhole; }
  friend bool operator==(const Digit&, const Digit&) = default;
};
using PlacedDim = absl::InlinedVector<Digit, 1>;
using PlacedDims = std::vector<PlacedDim>;

// Elements of each shard of a factor. Contiguous: the smallest number with which they suffice.
// Zigzag over [ring, ulysses]: that, made even, since a member of the ring holds two blocks.
int64_t ShardSize(int64_t size, int64_t shards, Layout layout);

PlacedDim Place(const Program& program, const ProgramDim& dim);
PlacedDims Place(const Program& program, const std::vector<ProgramDim>& dims);
PlacedDim Normalized(const PlacedDim& dim);
// All digits in order, as if the tensor had one dimension.
PlacedDim Flattened(const PlacedDims& dims);

int64_t LogicalSize(const PlacedDim& dim);
Shape LogicalShape(const PlacedDims& dims);
int64_t LocalSize(const PlacedDim& dim);
bool IsWhole(const PlacedDim& dim);  // neither split nor padded
// `pad(seq@ulysses)` is its major digit, and the padding lies at its end.
bool EndsWithPadding(const PlacedDim& dim);
PlacedDim WithoutPadding(PlacedDim dim);  // Requires: EndsWithPadding.
// The axes that split a dimension, in order of digits.
AxisList ShardAxes(const PlacedDim& dim);
AxisList ShardAxes(const PlacedDims& dims);
// Of digits that have padding, each once. A zigzag layout is one digit also where it needs none.
std::vector<PadKey> PadKeys(const PlacedDims& dims);
bool HasPad(const PlacedDim& dim, const PadKey& key);
bool HasPad(const PlacedDims& dims, const PadKey& key);

// The dimension after member i of `axes` took the i-th of equal parts of what it holds; nullopt
// where this gives no shards. Undone by concatenating the parts of all members.
std::optional<PlacedDim> SplitOver(const PlacedDim& dim, const AxisList& axes, const Mesh& mesh);

AxisList Nontrivial(const Mesh& mesh, const AxisList& axes);
bool Holds(const AxisList& axes, Axis axis);
bool HoldsAll(const AxisList& axes, const AxisList& some);
bool HoldsAny(const AxisList& axes, const AxisList& some);
AxisList Minus(const AxisList& a, const AxisList& b);
AxisList Plus(const AxisList& a, const AxisList& b);  // in the order of `Axis`

std::string ToText(const PlacedDims& dims);

}  // namespace autosp::checker
