// Feeds the inputs of a program from the data of a job: each rank reads the part that it holds.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/config/job_spec.h"
#include "worker/data/sample_order.h"
#include "worker/data/sample_reader.h"
#include "worker/data/token_files.h"
#include "worker/executor/feeder.h"

namespace autosp {

// Thread-compatible. Ranks that are threads share the files, each with a feeder of its own.
class DataFeeder final : public Feeder {
 public:
  static absl::StatusOr<std::unique_ptr<DataFeeder>> Make(const JobSpec& job,
                                                          std::shared_ptr<const TokenFiles> files);

  // Which global batch the next section runs on, from 0.
  void SelectTrainingStep(int64_t step);
  void SelectValidationBatch(int64_t batch);
  int64_t num_validation_batches() const { return order_.num_validation_batches(); }

  absl::StatusOr<at::Tensor> Feed(const FeedRequest& request) override;

 private:
  // The local part of one input: for each local place, the place in the batch and in the sequence,
  // or -1 where it is padding.
  struct Shard {
    std::vector<int64_t> batch_places = {0};
    std::vector<int64_t> positions = {0};
  };

  DataFeeder(const JobSpec& job, SampleOrder order, SampleReader reader);

  Sample SampleAt(int64_t batch_place) const;
  absl::StatusOr<Shard> ShardOf(const FeedRequest& request, const InputFeed& feed) const;
  // Row by row: [local batch, local sequence].
  absl::StatusOr<std::vector<int64_t>> ReadShard(const FeedRequest& request, InputSource source,
                                                 const Shard& shard) const;

  DataSpec data_;
  int64_t seq_len_;
  int64_t global_batch_size_;
  SampleOrder order_;
  SampleReader reader_;
  bool validates_ = false;
  int64_t step_ = 0;  // training step or validation batch
};

}  // namespace autosp
