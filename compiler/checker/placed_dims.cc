#include "compiler/checker/placed_dims.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace autosp::checker {

int64_t ShardSize(int64_t size, int64_t shards, Layout layout) {
  const int64_t smallest = (size + shards - 1) / shards;
  return layout == Layout::kZigzag ? (smallest + 1) / 2 * 2 : smallest;
}

namespace {

// Elements of each of `shards` parts of a factor. A zigzag layout is padded for the whole ring x
// ulysses, also where the ring alone splits it.
int64_t PlacedSize(int64_t size, int64_t shards, Layout layout, const Mesh& mesh) {
  if (layout == Layout::kContiguous || mesh.sp() % shards != 0) {
    return ShardSize(size, shards, layout);
  }
  return ShardSize(size, mesh.sp(), layout) * (mesh.sp() / shards);
}

}  // namespace

PlacedDim Place(const Program& program, const ProgramDim& dim) {
  PlacedDim digits;
  for (const DimFactor& each : dim) {
    const bool named = each.factor.valid();
    const int64_t size = named ? program.factors[each.factor.index].size : each.size;
    const Layout layout = named ? program.factors[each.factor.index].layout : Layout::kContiguous;
    const AxisList axes = Nontrivial(program.mesh, each.axes);
    const int64_t shards = program.mesh.size(axes);
    if (axes.empty() || (each.padded && layout == Layout::kContiguous && size % shards == 0)) {
      digits.push_back({.size = size, .local_size = size});
    } else if (layout == Layout::kContiguous && size % shards == 0) {
      for (Axis axis : axes) {
        digits.push_back(
            {.kind = Digit::Kind::kShard, .size = program.mesh.size(axis), .axis = axis});
      }
      digits.push_back({.size = size / shards, .local_size = size / shards});
    } else {
      const int64_t local = PlacedSize(size, shards, layout, program.mesh);
      digits.push_back({.kind = each.padded ? Digit::Kind::kPaddedWhole : Digit::Kind::kPaddedShard,
                        .size = size,
                        .axes = axes,
                        .pad = {size, local * shards, layout},
                        .local_size = each.padded ? local * shards : local});
    }
  }
  return Normalized(digits);
}

PlacedDims Place(const Program& program, const std::vector<ProgramDim>& dims) {
  PlacedDims result;
  for (const ProgramDim& dim : dims) result.push_back(Place(program, dim));
  return result;
}

PlacedDim Normalized(const PlacedDim& dim) {
  PlacedDim result;
  for (const Digit& digit : dim) {
    const bool is_whole = digit.kind == Digit::Kind::kWhole;
    if (is_whole && digit.size == 1) continue;
    if (is_whole && !result.empty() && result.back().kind == Digit::Kind::kWhole) {
      result.back().size *= digit.size;
      result.back().local_size *= digit.local_size;
    } else {
      result.push_back(digit);
    }
  }
  return result;
}

PlacedDim Flattened(const PlacedDims& dims) {
  PlacedDim all;
  for (const PlacedDim& dim : dims) all.insert(all.end(), dim.begin(), dim.end());
  return Normalized(all);
}

int64_t LogicalSize(const PlacedDim& dim) {
  int64_t size = 1;
  for (const Digit& digit : dim) size *= digit.size;
  return size;
}

Shape LogicalShape(const PlacedDims& dims) {
  Shape shape;
  for (const PlacedDim& dim : dims) shape.push_back(LogicalSize(dim));
  return shape;
}

int64_t LocalSize(const PlacedDim& dim) {
  int64_t size = 1;
  for (const Digit& digit : dim) size *= digit.local_size;
  return size;
}

bool IsWhole(const PlacedDim& dim) {
  return std::ranges::all_of(dim,
                             [](const Digit& digit) { return digit.kind == Digit::Kind::kWhole; });
}

bool EndsWithPadding(const PlacedDim& dim) {
  return !dim.empty() && dim[0].kind == Digit::Kind::kPaddedWhole &&
         dim[0].pad.layout == Layout::kContiguous;
}

PlacedDim WithoutPadding(PlacedDim dim) {
  dim[0] = {.size = dim[0].size, .local_size = dim[0].size};
  return Normalized(dim);
}

AxisList ShardAxes(const PlacedDim& dim) {
  AxisList axes;
  for (const Digit& digit : dim) {
    if (digit.kind == Digit::Kind::kShard) axes.push_back(digit.axis);
    if (digit.kind != Digit::Kind::kPaddedShard) continue;
    axes.insert(axes.end(), digit.axes.begin(), digit.axes.end());
  }
  return axes;
}

AxisList ShardAxes(const PlacedDims& dims) {
  AxisList axes;
  for (const PlacedDim& dim : dims) {
    const AxisList more = ShardAxes(dim);
    axes.insert(axes.end(), more.begin(), more.end());
  }
  return axes;
}

std::vector<PadKey> PadKeys(const PlacedDims& dims) {
  std::vector<PadKey> keys;
  for (const PlacedDim& dim : dims) {
    for (const Digit& digit : dim) {
      const bool has_padding = digit.is_padded() && digit.pad.padded_size > digit.pad.size;
      if (has_padding && std::ranges::count(keys, digit.pad) == 0) keys.push_back(digit.pad);
    }
  }
  return keys;
}

bool HasPad(const PlacedDim& dim, const PadKey& key) {
  return std::ranges::any_of(
      dim, [&](const Digit& digit) { return digit.is_padded() && digit.pad == key; });
}

bool HasPad(const PlacedDims& dims, const PadKey& key) {
  return std::ranges::any_of(dims, [&](const PlacedDim& dim) { return HasPad(dim, key); });
}

std::optional<PlacedDim> SplitOver(const PlacedDim& dim, const AxisList& axes, const Mesh& mesh) {
  PlacedDim result;
  size_t at = 0;
  while (at < dim.size() && dim[at].kind == Digit::Kind::kShard) result.push_back(dim[at++]);
  if (at == dim.size()) return std::nullopt;
  Digit upper = dim[at];
  const int64_t shards = mesh.size(axes);
  const int64_t parts = upper.local_size / shards;
  if (upper.kind == Digit::Kind::kPaddedWhole && upper.axes == axes) {
    upper.kind = Digit::Kind::kPaddedShard;
    upper.local_size = parts;
    result.push_back(upper);
  } else if (upper.kind == Digit::Kind::kPaddedShard && parts > 0 &&
             parts == ShardSize(upper.size, upper.pad.padded_size / parts, upper.pad.layout) &&
             parts * shards == upper.local_size) {
    // Members of an inner axis hold consecutive parts of what one of the outer axes holds, in the
    // zigzag layout too.
    upper.axes.insert(upper.axes.end(), axes.begin(), axes.end());
    upper.local_size = parts;
    result.push_back(upper);
  } else if (upper.kind == Digit::Kind::kWhole && upper.size % shards == 0) {
    for (Axis axis : axes) {
      result.push_back({.kind = Digit::Kind::kShard, .size = mesh.size(axis), .axis = axis});
    }
    result.push_back({.size = upper.size / shards, .local_size = upper.size / shards});
  } else {
    return std::nullopt;
  }
  result.insert(result.end(), dim.begin() + static_cast<std::ptrdiff_t>(at) + 1, dim.end());
  return Normalized(result);
}

AxisList Nontrivial(const Mesh& mesh, const AxisList& axes) {
  AxisList result;
  for (Axis axis : axes) {
    if (mesh.size(axis) > 1) result.push_back(axis);
  }
  return result;
}

bool Holds(const AxisList& axes, Axis axis) { return std::ranges::count(axes, axis) > 0; }

bool HoldsAll(const AxisList& axes, const AxisList& some) {
  return std::ranges::all_of(some, [&](Axis axis) { return Holds(axes, axis); });
}

bool HoldsAny(const AxisList& axes, const AxisList& some) {
  return std::ranges::any_of(some, [&](Axis axis) { return Holds(axes, axis); });
}

AxisList Minus(const AxisList& a, const AxisList& b) {
  AxisList result;
  for (Axis axis : a) {
    if (!Holds(b, axis)) result.push_back(axis);
  }
  return result;
}

AxisList Plus(const AxisList& a, const AxisList& b) {
  AxisList result;
  for (Axis axis : kAllAxes) {
    if (Holds(a, axis) || Holds(b, axis)) result.push_back(axis);
  }
  return result;
}

std::string ToText(const PlacedDims& dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); ++i) {
    if (i > 0) text += ", ";
    if (dims[i].empty()) text += "1";
    for (size_t j = 0; j < dims[i].size(); ++j) {
      const Digit& digit = dims[i][j];
      if (j > 0) text += "*";
      absl::StrAppend(&text, digit.size);
      if (digit.kind == Digit::Kind::kShard) {
        absl::StrAppend(&text, "@", std::string(AxisName(digit.axis)));
      } else if (digit.is_padded()) {
        const bool whole = digit.kind == Digit::Kind::kPaddedWhole;
        absl::StrAppend(&text, whole ? "@pad(" : "@", AxisListName(digit.axes), whole ? ")" : "",
                        digit.pad.layout == Layout::kZigzag ? " zigzag" : "");
      }
    }
  }
  return text + "]";
}

}  // namespace autosp::checker
