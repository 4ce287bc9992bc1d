// Reads the log files of one rank, from the end if wished, across the rotation, while they grow.

#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace autosp::agent {

struct LogReadOptions {
  int64_t tail_lines = 0;  // Start with the last lines; 0: all that is kept.
  // Go on until this says that nothing more will be written. Empty: stop at the present end.
  std::function<bool()> is_growing;
  // Asked between reads; the reader ends when it says yes.
  std::function<bool()> is_cancelled;
};

// Hands `path` (and "<path>.1" before it) to `sink` in pieces; ends early when the sink says no.
// NOT_FOUND when there is neither.
absl::Status ReadRankLog(const std::string& path, const LogReadOptions& options,
                         const std::function<bool(absl::string_view)>& sink);

}  // namespace autosp::agent
