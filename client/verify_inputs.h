// What a verification is fed where it is not the job's own data: a file of inputs, or random
// tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/config/job_spec.h"
#include "compiler/ir/graph.h"

namespace autosp {

struct BatchSizes {
  int64_t batch_size = 1;
  std::optional<int64_t> seq_len = std::nullopt;  // none: no input has tokens (images)
};

// The sizes of the inputs of `graph` in the safetensors file `path`, by the roles that their
// dimensions have in `data`. Error: an input that is missing, or sizes that contradict each other.
absl::StatusOr<BatchSizes> SizesOfBatch(const Graph& graph, const DataSpec& data,
                                        const std::string& path);

// Ids below this one are safe to feed: the rows of the smallest table in which tokens are looked
// up, or the classes of a loss if those are fewer. An error where the graph has neither.
absl::StatusOr<int64_t> VocabularyOf(const Graph& graph, const DataSpec& data);

// Replaces the data of `job` by random tokens below `vocabulary`, in a new file `path`.
absl::Status UseRandomTokens(int64_t vocabulary, const std::string& path, JobSpec& job);

}  // namespace autosp
