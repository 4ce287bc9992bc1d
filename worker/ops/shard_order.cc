// A whole dimension in the order of its shards, and back: what a zigzag layout needs around
// collectives and slices.
//
// A rank of a zigzag layout holds two blocks of the sequence that do not touch. all_gather and
// all_to_all put shards one after another; from_shards then brings the elements into their global
// order and drops the padding. to_shards is its inverse.
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>

#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/ops/own_op.h"
#include "worker/ops/shard_indices.h"

namespace autosp {
namespace {

// A dimension whose major factor lies in shards; what follows it stays together.
struct ShardedDim {
  int64_t dim = 0;
  int64_t size = 0;               // of the whole dimension, on this rank
  std::vector<int64_t> elements;  // in the order of shards: the place in the whole; -1: padding
};

// The dimension of `value` that the instruction names.
absl::StatusOr<ShardedDim> FindDim(const OwnOpContext& context, ValueId value) {
  const Program& program = context.program;
  ShardedDim found;
  ASSIGN_OR_RETURN(found.dim, IntAttribute(context.instruction, "dim"));
  const std::vector<ProgramDim>& dims = program.value(value).dims;
  const auto rank = static_cast<int64_t>(dims.size());
  if (found.dim < 0 || found.dim >= rank || dims[found.dim].empty() ||
      !dims[found.dim].front().padded) {
    return InvalidArgument(context.instruction.op, ": dim (", found.dim, ") of %",
                           program.value(value).name, " does not begin with a padded factor");
  }
  const DimFactor& factor = dims[found.dim].front();
  const int64_t size = program.factors[factor.factor.index].size;
  const int64_t inner = program.LocalSize(dims[found.dim]) / program.LocalSize(factor);
  found.size = size * inner;
  for (const int64_t index : GlobalIndices(program, factor, {context.place})) {
    for (int64_t i = 0; i < inner; ++i) {
      found.elements.push_back(index < size ? index * inner + i : -1);
    }
  }
  return found;
}

at::Tensor Select(const at::Tensor& from, int64_t dim, std::vector<int64_t> indices) {
  const at::Tensor index =
      at::from_blob(indices.data(), {static_cast<int64_t>(indices.size())}, at::kLong);
  return at::index_select(from, dim, index.to(from.device()));
}

double Number(const Argument& argument) {
  if (const auto* value = std::get_if<SymInt>(&argument)) return static_cast<double>(value->value);
  if (const auto* value = std::get_if<bool>(&argument)) return *value ? 1.0 : 0.0;
  const auto* value = std::get_if<double>(&argument);
  return value != nullptr ? *value : 0.0;
}

}  // namespace

// (whole, fill) {dim} -> the shards of all members one after another, padded with `fill`
absl::StatusOr<OwnOp> MakeToShards(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 2, 1));
  ASSIGN_OR_RETURN(ShardedDim shards, FindDim(context, context.instruction.results[0]));
  std::vector<int64_t> padding;
  for (size_t i = 0; i < shards.elements.size(); ++i) {
    if (shards.elements[i] >= 0) continue;
    padding.push_back(static_cast<int64_t>(i));
    shards.elements[i] = 0;
  }
  const double fill = Number(context.instruction.args[1]);
  return [fill, shards = std::move(shards), padding = std::move(padding)](const OwnCall& call) {
    at::Tensor result = Select(call.args[0][0], shards.dim, shards.elements);
    for (const int64_t place : padding) result.select(shards.dim, place).fill_(fill);
    call.results = {std::move(result)};
    return absl::OkStatus();
  };
}

// (shards one after another) {dim} -> the elements in global order, without padding
absl::StatusOr<OwnOp> MakeFromShards(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 1, 1));
  ASSIGN_OR_RETURN(const ShardedDim shards,
                   FindDim(context, OperandsOf(context.instruction).at(0)));
  std::vector<int64_t> places(static_cast<size_t>(shards.size), 0);
  for (size_t i = 0; i < shards.elements.size(); ++i) {
    if (shards.elements[i] >= 0) places[shards.elements[i]] = static_cast<int64_t>(i);
  }
  return [dim = shards.dim, places = std::move(places)](const OwnCall& call) {
    call.results = {Select(call.args[0][0], dim, places)};
    return absl::OkStatus();
  };
}

}  // namespace autosp
