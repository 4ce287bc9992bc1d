// Which sample of the data is at which place of which batch.
//
// The stream of tokens is cut into samples of seq_len tokens. The last ones are held out for
// validation and are visited in file order. The others are visited in passes; each pass is a
// permutation of its own, computed place by place, so that no rank holds a table, and that the
// batches depend on the seed alone: not on the number of ranks.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

namespace autosp {

struct Sample {
  int64_t index = 0;  // in the data
  int64_t pass = 0;   // over the training data; 0 for held-out samples
  friend bool operator==(const Sample&, const Sample&) = default;
};

struct SampleOrderOptions {
  int64_t num_tokens = 0;
  int64_t seq_len = 1;
  int64_t global_batch_size = 1;
  double validation_fraction = 0;
  uint64_t shuffle_seed = 0;
};

class SampleOrder {
 public:
  // An error when no sample is left to train on, or less than a batch to validate on.
  static absl::StatusOr<SampleOrder> Make(const SampleOrderOptions& options);

  int64_t num_training_samples() const { return num_training_; }
  int64_t num_validation_batches() const { return num_validation_ / options_.global_batch_size; }

  // Place `place` of the global batch of optimizer step `step`, both from 0.
  Sample Training(int64_t step, int64_t place) const;
  Sample Validation(int64_t batch, int64_t place) const;

 private:
  explicit SampleOrder(const SampleOrderOptions& options) : options_(options) {}

  SampleOrderOptions options_;
  int64_t num_training_ = 0;
  int64_t num_validation_ = 0;
};

// A number that looks random and depends on all arguments.
uint64_t HashOf(uint64_t seed, uint64_t a, uint64_t b = 0, uint64_t c = 0);

// The image of `place` under a permutation of 0 .. size - 1 that the key chooses.
int64_t Permute(int64_t place, int64_t size, uint64_t key);

}  // namespace autosp
