// Short programs that are run for what they print.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/subprocess.h"

namespace autosp {

struct ProgramOutput {
  ExitState exit;
  std::string text;  // stdout and stderr together
};

// Runs `argv` to its end; it dies with this process. Errors: it cannot be started or read, or it
// prints `max_bytes` or more, and is killed.
absl::StatusOr<ProgramOutput> RunForOutput(const std::vector<std::string>& argv, size_t max_bytes);

}  // namespace autosp
