// What the inputs of a graph hold: tokens, labels, positions, masks, for any part of a sample.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compiler/config/job_spec.h"
#include "worker/data/sample_order.h"
#include "worker/data/token_files.h"

namespace autosp {

// Reads the inputs of one job. Everything random in them is keyed by (seed, pass, sample,
// position): ranks that hold different parts of a sample agree about all of it, however it is
// sharded. Immutable, so that threads may share it.
class SampleReader {
 public:
  SampleReader(std::shared_ptr<const TokenFiles> files, const DataSpec& data, int64_t seq_len,
               uint64_t seed);

  // The input `source` of `sample` at `positions` (each in 0 .. seq_len - 1), into `values`.
  absl::Status Read(InputSource source, const Sample& sample, absl::Span<const int64_t> positions,
                    absl::Span<int64_t> values) const;

 private:
  // Tokens at stream places base + positions[i]; reads runs of neighbours at once.
  absl::Status ReadTokens(int64_t base, absl::Span<const int64_t> positions,
                          absl::Span<int64_t> values) const;
  absl::Status ReadNextTokens(int64_t base, absl::Span<const int64_t> positions,
                              absl::Span<int64_t> values) const;
  bool IsMasked(const Sample& sample, int64_t position) const;
  absl::Status Mask(const Sample& sample, absl::Span<const int64_t> positions,
                    absl::Span<int64_t> values) const;

  std::shared_ptr<const TokenFiles> files_;
  DataSpec data_;
  int64_t seq_len_;
  uint64_t seed_;
};

}  // namespace autosp
