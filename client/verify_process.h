// autosp-verify as a child process.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autosp {

struct VerifyProcessOptions {
  std::string program;  // its path
  std::vector<std::string> arguments;
  std::function<bool()> is_interrupted;
  std::function<void(absl::string_view)> on_progress;
};

// Runs it to its end and returns its result. It dies with this process, and is stopped when
// `is_interrupted` says so (CANCELLED). Its error, or its last output where it ended without one,
// is the error.
absl::StatusOr<nlohmann::json> RunVerifyProcess(const VerifyProcessOptions& options);

}  // namespace autosp
