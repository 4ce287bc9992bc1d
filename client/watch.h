// Follows a job to its end and shows it.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>

#include "absl/status/statusor.h"
#include "autosp/v1/job.pb.h"
#include "client/coordinator_client.h"
#include "client/exit_code.h"

namespace autosp {

struct WatchOptions {
  bool is_json = false;      // one JSON object per event, then {"job": ...}
  bool is_terminal = false;  // `out` is one: progress in place
  int64_t every_steps = 0;   // for what is no terminal; 0: about twenty lines
  bool only_shows = false;   // there is no use in going on when `out` cannot be written to
};

// Returns the job in its last state. CANCELLED when CancelCalls interrupted it, or
// when nothing more can be shown and it `only_shows`.
absl::StatusOr<v1::Job> WatchToEnd(CoordinatorClient& client, const std::string& job_id,
                                   const WatchOptions& options, std::ostream& out);

// Of a job that has ended.
ExitCode ExitCodeOf(const v1::Job& job);

}  // namespace autosp
