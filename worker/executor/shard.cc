#include "worker/executor/shard.h"

#include <ATen/core/List.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>

#include <optional>
#include <vector>

#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/program/split_dim.h"

namespace autosp {
namespace {

bool IsIdentity(const std::vector<int64_t>& indices, int64_t size) {
  if (static_cast<int64_t>(indices.size()) != size) return false;
  for (size_t i = 0; i < indices.size(); ++i) {
    if (indices[i] != static_cast<int64_t>(i)) return false;
  }
  return true;
}

// One element after the other, none of them padding.
bool IsRange(const std::vector<int64_t>& indices, int64_t size) {
  if (indices.empty() || indices.front() < 0 || indices.back() >= size) return false;
  for (size_t i = 1; i < indices.size(); ++i) {
    if (indices[i] != indices[0] + static_cast<int64_t>(i)) return false;
  }
  return true;
}

bool IsPadding(int64_t index, int64_t size) { return index < 0 || index >= size; }

at::Tensor AsTensor(std::vector<int64_t>& indices) {
  return at::from_blob(indices.data(), {static_cast<int64_t>(indices.size())}, at::kLong);
}

// Positions whose element exists, and the elements: what remains without padding.
struct ValidIndices {
  std::vector<int64_t> local;
  std::vector<int64_t> global;
};
ValidIndices WithoutPadding(const std::vector<int64_t>& indices, int64_t size) {
  ValidIndices valid;
  for (size_t i = 0; i < indices.size(); ++i) {
    if (IsPadding(indices[i], size)) continue;
    valid.local.push_back(static_cast<int64_t>(i));
    valid.global.push_back(indices[i]);
  }
  return valid;
}

}  // namespace

std::vector<int64_t> GlobalSizes(const Program& program, const ProgramValue& value) {
  std::vector<int64_t> sizes;
  for (const ProgramDim& dim : value.dims) sizes.push_back(GlobalSize(program, dim));
  return sizes;
}

absl::StatusOr<at::Tensor> TakeShard(const Program& program, const ProgramValue& value,
                                     const ShardPlace& place, const at::Tensor& whole, double pad) {
  const std::vector<int64_t> sizes = GlobalSizes(program, value);
  if (whole.sizes() != at::IntArrayRef(sizes)) {
    return InvalidArgument("the tensor is [", absl::StrJoin(whole.sizes(), ", "),
                           "], the program has [", absl::StrJoin(sizes, ", "), "]");
  }
  at::Tensor local = whole;
  for (size_t i = 0; i < value.dims.size(); ++i) {
    const auto dim = static_cast<int64_t>(i);
    std::vector<int64_t> indices = GlobalIndices(program, value.dims[i], place);
    if (IsIdentity(indices, sizes[i])) continue;
    // Rows that follow each other are read where they are.
    if (dim == 0 && IsRange(indices, sizes[i])) {
      local = local.narrow(dim, indices[0], static_cast<int64_t>(indices.size()));
      continue;
    }
    // Padding reads some element first and is overwritten then.
    std::vector<int64_t> padding;
    for (size_t j = 0; j < indices.size(); ++j) {
      if (!IsPadding(indices[j], sizes[i])) continue;
      padding.push_back(static_cast<int64_t>(j));
      indices[j] = 0;
    }
    local = local.index_select(dim, AsTensor(indices));
    for (const int64_t j : padding) local.select(dim, j).fill_(pad);
  }
  return local;
}

void PutShard(const Program& program, const ProgramValue& value, const ShardPlace& place,
              const at::Tensor& local, const at::Tensor& whole) {
  // One index tensor per dim, shaped to broadcast against the others.
  const auto rank = static_cast<int64_t>(value.dims.size());
  if (rank == 0) {
    whole.copy_(local);
    return;
  }
  at::Tensor part = local;
  std::vector<ValidIndices> valid;
  c10::List<std::optional<at::Tensor>> index;
  for (int64_t dim = 0; dim < rank; ++dim) {
    valid.push_back(
        WithoutPadding(GlobalIndices(program, value.dims[dim], place), whole.size(dim)));
  }
  for (int64_t dim = 0; dim < rank; ++dim) {
    part = part.index_select(dim, AsTensor(valid[dim].local));
    std::vector<int64_t> shape(static_cast<size_t>(rank), 1);
    shape[dim] = static_cast<int64_t>(valid[dim].global.size());
    index.push_back(AsTensor(valid[dim].global).view(shape));
  }
  at::Tensor target = whole;
  target.index_put_(index, part.to(whole.scalar_type()));
}

absl::StatusOr<at::Tensor> GatherShards(const Program& program, const ProgramValue& value,
                                        const at::Tensor& local, CollectiveProvider* collectives) {
  ASSIGN_OR_RETURN(const std::optional<SplitDim> split, SplitDimOf(program, value));
  if (!split) return local;
  if (collectives == nullptr) {
    return FailedPrecondition("%", value.name, " is split over ", AxisListName(split->axes),
                              ", and the rank has no collectives");
  }
  ASSIGN_OR_RETURN(Collectives* const group, collectives->Group(split->axes));
  const at::Tensor part = local.contiguous();
  std::vector<int64_t> sizes = part.sizes().vec();
  sizes.insert(sizes.begin(), group->size());
  const at::Tensor parts = at::empty(sizes, part.options());
  RETURN_IF_ERROR(group->AllGather(
      {static_cast<const std::byte*>(part.const_data_ptr()), static_cast<size_t>(part.nbytes())},
      {static_cast<std::byte*>(parts.mutable_data_ptr()), static_cast<size_t>(parts.nbytes())}));
  RETURN_IF_ERROR(group->Synchronize());
  return at::cat(parts.unbind(0), split->dim);
}

}  // namespace autosp
