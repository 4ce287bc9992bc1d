#include "worker/data/data_feeder.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/torch_types.h"
#include "worker/ops/shard_indices.h"

namespace autosp {
namespace {

absl::StatusOr<int64_t> PadValue(const FeedRequest& request) {
  if (const auto* integer = std::get_if<SymInt>(&request.pad)) return integer->value;
  if (const auto* boolean = std::get_if<bool>(&request.pad)) return *boolean ? 1 : 0;
  if (const auto* number = std::get_if<double>(&request.pad)) return static_cast<int64_t>(*number);
  return absl::InternalError(absl::StrCat("input ", std::string(request.name),
                                          ": its shard is padded and the program names no pad"));
}

// Rows and columns of the shard become the dimensions of the input; `other` ones repeat it.
at::Tensor Arrange(std::vector<int64_t>& rows, const InputFeed& feed,
                   const std::vector<int64_t>& sizes, int64_t num_columns, at::ScalarType dtype) {
  std::vector<int64_t> strides(sizes.size(), 0);
  for (size_t dim = 0; dim < sizes.size(); ++dim) {
    if (feed.dims[dim] == DimRole::kBatch) strides[dim] = num_columns;
    if (feed.dims[dim] == DimRole::kSequence) strides[dim] = 1;
  }
  at::Tensor result = at::empty(sizes, dtype);
  result.copy_(at::from_blob(rows.data(), sizes, strides, at::kLong));
  return result;
}

bool IsConstant(InputSource source) {
  return source == InputSource::kOnes || source == InputSource::kZeros;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DataFeeder>> DataFeeder::Make(
    const JobSpec& job, std::shared_ptr<const TokenFiles> files) {
  ASSIGN_OR_RETURN(
      SampleOrder order,
      SampleOrder::Make({.num_tokens = files->num_tokens(),
                         .seq_len = job.training.seq_len,
                         .global_batch_size = job.training.global_batch_size,
                         .validation_fraction = job.data.validation.fraction,
                         .shuffle_seed = static_cast<uint64_t>(job.data.shuffle_seed)}));
  SampleReader reader(std::move(files), job.data, job.training.seq_len,
                      static_cast<uint64_t>(job.training.seed));
  return std::unique_ptr<DataFeeder>(new DataFeeder(job, std::move(order), std::move(reader)));
}

DataFeeder::DataFeeder(const JobSpec& job, SampleOrder order, SampleReader reader)
    : data_(job.data),
      seq_len_(job.training.seq_len),
      global_batch_size_(job.training.global_batch_size),
      order_(std::move(order)),
      reader_(std::move(reader)) {}

void DataFeeder::SelectTrainingStep(int64_t step) {
  validates_ = false;
  step_ = step;
}

void DataFeeder::SelectValidationBatch(int64_t batch) {
  validates_ = true;
  step_ = batch;
}

Sample DataFeeder::SampleAt(int64_t batch_place) const {
  return validates_ ? order_.Validation(step_, batch_place) : order_.Training(step_, batch_place);
}

absl::StatusOr<DataFeeder::Shard> DataFeeder::ShardOf(const FeedRequest& request,
                                                      const InputFeed& feed) const {
  const std::string name(request.name);
  if (feed.dims.size() != request.value.dims.size()) {
    return InvalidArgument("data.inputs.", name, ".dims: names ", feed.dims.size(),
                           " dimensions, the input has ", request.value.dims.size());
  }
  const ShardPlace place{.rank = request.place, .micro_step = request.micro_step};
  Shard shard;
  for (size_t dim = 0; dim < feed.dims.size(); ++dim) {
    if (feed.dims[dim] == DimRole::kOther) continue;
    const bool is_batch = feed.dims[dim] == DimRole::kBatch;
    const int64_t expected = is_batch ? global_batch_size_ : seq_len_;
    const int64_t size = GlobalSize(request.program, request.value.dims[dim]);
    if (size != expected && !IsConstant(feed.source)) {
      return InvalidArgument("input ", name, ": dimension ", dim, " has size ", size, ", but ",
                             is_batch ? "training.global_batch_size is " : "training.seq_len is ",
                             expected);
    }
    auto indices = GlobalIndices(request.program, request.value.dims[dim], place);
    (is_batch ? shard.batch_places : shard.positions) = std::move(indices);
  }
  return shard;
}

absl::StatusOr<std::vector<int64_t>> DataFeeder::ReadShard(const FeedRequest& request,
                                                           InputSource source,
                                                           const Shard& shard) const {
  std::vector<int64_t> valid;  // positions that are no padding, which is at the end of a run
  for (const int64_t position : shard.positions) {
    if (position >= 0) valid.push_back(position);
  }
  const size_t num_columns = shard.positions.size();
  const bool has_padding = valid.size() < num_columns ||
                           std::count(shard.batch_places.begin(), shard.batch_places.end(), -1) > 0;
  int64_t pad = 0;
  if (has_padding) {
    ASSIGN_OR_RETURN(pad, PadValue(request));
  }
  std::vector<int64_t> rows(shard.batch_places.size() * num_columns, pad);
  std::vector<int64_t> values(valid.size());
  for (size_t row = 0; row < shard.batch_places.size(); ++row) {
    if (shard.batch_places[row] < 0) continue;
    RETURN_IF_ERROR(
        reader_.Read(source, SampleAt(shard.batch_places[row]), valid, absl::MakeSpan(values)));
    size_t next = 0;
    for (size_t column = 0; column < num_columns; ++column) {
      if (shard.positions[column] >= 0) rows[row * num_columns + column] = values[next++];
    }
  }
  return rows;
}

absl::StatusOr<at::Tensor> DataFeeder::Feed(const FeedRequest& request) {
  const std::string name(request.name);
  const std::optional<InputFeed> feed = InputFeedFor(data_, name);
  if (!feed.has_value()) {
    return InvalidArgument("input ", name, ": the data does not feed it; add data.inputs.", name);
  }
  ASSIGN_OR_RETURN(const Shard shard, ShardOf(request, *feed));
  ASSIGN_OR_RETURN(std::vector<int64_t> rows, ReadShard(request, feed->source, shard));
  at::Tensor result;
  RETURN_IF_ERROR(CatchTorch([&] {
    result =
        Arrange(rows, *feed, request.program.LocalSizes(request.value),
                static_cast<int64_t>(shard.positions.size()), ToScalarType(request.value.dtype));
    return absl::OkStatus();
  }));
  return result;
}

}  // namespace autosp
