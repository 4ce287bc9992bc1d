// Between whole tensors and the parts that ranks hold.
#pragma once

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/program/program.h"
#include "worker/executor/environment.h"
#include "worker/ops/shard_indices.h"

namespace autosp {

// The sizes that `value` has when nothing is sharded and nothing padded.
std::vector<int64_t> GlobalSizes(const Program& program, const ProgramValue& value);

// The part of `whole` that the rank at `place` holds of `value`; padding is filled with `pad`. May
// be `whole` itself, or rows of it. Error: other sizes than GlobalSizes.
absl::StatusOr<at::Tensor> TakeShard(const Program& program, const ProgramValue& value,
                                     const ShardPlace& place, const at::Tensor& whole,
                                     double pad = 0);

// Writes the part `local` to its place in `whole`, without its padding.
void PutShard(const Program& program, const ProgramValue& value, const ShardPlace& place,
              const at::Tensor& local, const at::Tensor& whole);

// The whole of a persistent value, of which the rank holds `local`: an exchange within the group of
// those that it is split over. `local` itself where it is whole.
absl::StatusOr<at::Tensor> GatherShards(const Program& program, const ProgramValue& value,
                                        const at::Tensor& local, CollectiveProvider* collectives);

}  // namespace autosp
