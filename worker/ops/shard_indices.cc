#include "worker/ops/shard_indices.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <string>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/ops/own_op.h"

namespace autosp {
namespace {

int64_t SizeOf(const Program& program, const DimFactor& factor) {
  return factor.factor.valid() ? program.factors[factor.factor.index].size : factor.size;
}

Layout LayoutOf(const Program& program, const DimFactor& factor) {
  return factor.factor.valid() ? program.factors[factor.factor.index].layout : Layout::kContiguous;
}

// How a factor is laid out over its shards.
struct ShardMap {
  int64_t num_shards = 1;
  int64_t length = 0;    // of a shard
  int64_t num_ring = 1;  // 1: shards are contiguous
};

ShardMap MapOf(const Program& program, const DimFactor& factor) {
  ShardMap map;
  map.num_shards = program.mesh.size(factor.axes);
  map.length = program.PaddedSize(factor) / map.num_shards;
  const bool begins_with_ring = !factor.axes.empty() && factor.axes.front() == Axis::kRing;
  if (begins_with_ring && LayoutOf(program, factor) == Layout::kZigzag) {
    map.num_ring = program.mesh.ring;
  }
  return map;
}

// Appends the indices of one shard.
void AppendShard(const ShardMap& map, int64_t shard, std::vector<int64_t>& indices) {
  const int64_t first = shard * map.length;
  if (map.num_ring == 1) {
    for (int64_t i = 0; i < map.length; ++i) indices.push_back(first + i);
    return;
  }
  // The shards of one ring member follow each other, and together are its two blocks.
  const int64_t member_length = map.num_shards / map.num_ring * map.length;
  const int64_t block = member_length / 2;
  const int64_t member = first / member_length;
  for (int64_t i = first % member_length; i < first % member_length + map.length; ++i) {
    indices.push_back(i < block ? member * block + i
                                : (2 * map.num_ring - 1 - member) * block + i - block);
  }
}

}  // namespace

int64_t ShardPlace::IndexOn(const AxisList& axes, const Mesh& mesh) const {
  int64_t index = 0;
  for (const Axis axis : axes) {
    const int64_t place = axis == Axis::kAccum  ? micro_step
                          : axis == Axis::kTile ? tile
                                                : rank.index(axis);
    index = index * mesh.size(axis) + place;
  }
  return index;
}

std::vector<int64_t> GlobalIndices(const Program& program, const DimFactor& factor,
                                   const ShardPlace& place) {
  const ShardMap map = MapOf(program, factor);
  std::vector<int64_t> indices;
  indices.reserve(static_cast<size_t>(program.LocalSize(factor)));
  if (!factor.padded) {
    AppendShard(map, place.IndexOn(factor.axes, program.mesh), indices);
    return indices;
  }
  for (int64_t shard = 0; shard < map.num_shards; ++shard) AppendShard(map, shard, indices);
  return indices;
}

std::vector<int64_t> GlobalIndices(const Program& program, const ProgramDim& dim,
                                   const ShardPlace& place) {
  std::vector<int64_t> indices = {0};
  for (const DimFactor& factor : dim) {
    const int64_t size = SizeOf(program, factor);
    const std::vector<int64_t> inner = GlobalIndices(program, factor, place);
    std::vector<int64_t> product;
    product.reserve(indices.size() * inner.size());
    for (const int64_t major : indices) {
      for (const int64_t minor : inner) {
        product.push_back(major < 0 || minor >= size ? -1 : major * size + minor);
      }
    }
    indices = std::move(product);
  }
  return indices;
}

int64_t GlobalSize(const Program& program, const ProgramDim& dim) {
  int64_t size = 1;
  for (const DimFactor& factor : dim) size *= SizeOf(program, factor);
  return size;
}

// () {factor, axes} -> i64 [local size]: the global index of each local element of a factor
absl::StatusOr<OwnOp> MakeShardIndices(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 0, 1));
  ASSIGN_OR_RETURN(const std::string name, StringAttribute(context.instruction, "factor"));
  ASSIGN_OR_RETURN(const AxisList axes, AxesAttribute(context.instruction));
  const std::vector<Factor>& factors = context.program.factors;
  const auto found = std::ranges::find(factors, name, &Factor::name);
  if (found == factors.end()) {
    return InvalidArgument("factor '", name, "' is not one of the program's factors");
  }
  DimFactor factor;
  factor.factor = FactorId{static_cast<int32_t>(found - factors.begin())};
  factor.axes = axes;
  return [&program = context.program, rank = context.place, device = context.device,
          factor](const OwnCall& call) {
    const std::vector<int64_t> indices =
        GlobalIndices(program, factor, {rank, call.micro_step, call.tile});
    at::Tensor result = at::empty({static_cast<int64_t>(indices.size())}, at::kLong);
    std::ranges::copy(indices, result.mutable_data_ptr<int64_t>());
    call.results = {result.to(device)};
    return absl::OkStatus();
  };
}

}  // namespace autosp
