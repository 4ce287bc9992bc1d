// Where a process that an agent may have started reports.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "worker/rank/rank_config.h"
#include "worker/rank/rank_reporter.h"

namespace autosp {

// To the agent, or to the log where the spec names none. Ends the process with exit code 1 when the
// agent is gone: nobody would know of it any more, nor stop it.
absl::StatusOr<std::unique_ptr<RankReporter>> MakeReporter(const RankConfig& config);

}  // namespace autosp
