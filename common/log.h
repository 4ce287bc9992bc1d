// Log lines on stderr, one per event:
//
//   2026-05-04T12:00:00.123Z I agent[node-0] job job-7xk: rank 1 started, pid 4711
//
// The level comes from the environment variable AUTOSP_LOG (debug, info, warning, error, off;
// default info). spdlog stays behind this header because including it costs seconds.

#pragma once

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace autosp {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

// Names the process in every line: `role` is the kind of process, `instance` which one of its kind
// ("" where there is only one). Call once, first thing in main; without it lines name no process.
void InitLogging(absl::string_view role, absl::string_view instance = "");

// Overrides AUTOSP_LOG, for --verbose and for tests.
void SetLogLevel(LogLevel level);

bool IsLogged(LogLevel level);

// Thread-safe. Newlines in `message` are kept as "\n", so that an event stays one line.
void LogMessage(LogLevel level, absl::string_view message);

template <typename... Parts>
void LogDebug(const Parts&... parts) {
  if (IsLogged(LogLevel::kDebug)) LogMessage(LogLevel::kDebug, absl::StrCat(parts...));
}

template <typename... Parts>
void LogInfo(const Parts&... parts) {
  if (IsLogged(LogLevel::kInfo)) LogMessage(LogLevel::kInfo, absl::StrCat(parts...));
}

template <typename... Parts>
void LogWarning(const Parts&... parts) {
  if (IsLogged(LogLevel::kWarning)) LogMessage(LogLevel::kWarning, absl::StrCat(parts...));
}

template <typename... Parts>
void LogError(const Parts&... parts) {
  if (IsLogged(LogLevel::kError)) LogMessage(LogLevel::kError, absl::StrCat(parts...));
}

}  // namespace autosp
