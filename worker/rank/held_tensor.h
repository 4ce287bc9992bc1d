// What a rank's executor holds, as checkpoints ask for it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "worker/checkpoint/shard_snapshot.h"
#include "worker/executor/executor.h"

namespace autosp {

absl::StatusOr<HeldTensor> HeldBy(const Executor& executor, const std::string& name);

}  // namespace autosp
