// Early return for absl::Status and absl::StatusOr.
//
//   RETURN_IF_ERROR(file.Close());
//   RETURN_IF_ERROR(WithContext(ReadHeader(file), "weights ", path));
//   ASSIGN_OR_RETURN(Graph graph, ParseGraph(text));
//   ASSIGN_OR_RETURN(Graph graph, ParseGraph(text), "golden file ", path);
//
// Context goes in front of the message, as in "golden file a.ir: line 3: unknown op". The code and
// the payloads of the status stay as they are.

#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace autosp {

// Puts `parts: ` before the message of an error; leaves an ok status alone.
template <typename... Parts>
absl::Status WithContext(const absl::Status& status, const Parts&... parts) {
  if (status.ok()) return status;
  absl::Status result(status.code(), absl::StrCat(parts..., ": ", status.message()));
  status.ForEachPayload([&result](absl::string_view url, const absl::Cord& payload) {
    result.SetPayload(url, payload);
  });
  return result;
}

namespace status_macros_internal {

// ASSIGN_OR_RETURN without context must not add a bare ": ".
inline absl::Status MaybeWithContext(const absl::Status& status) { return status; }

template <typename... Parts>
absl::Status MaybeWithContext(const absl::Status& status, const Parts&... parts) {
  return WithContext(status, parts...);
}

}  // namespace status_macros_internal
}  // namespace autosp

#define RETURN_IF_ERROR(expr)                                                                \
  do {                                                                                       \
    if (absl::Status status_macro_status = (expr); !status_macro_status.ok()) [[unlikely]] { \
      return status_macro_status;                                                            \
    }                                                                                        \
  } while (false)

#define ASSIGN_OR_RETURN(lhs, expr, ...) \
  STATUS_MACROS_ASSIGN(STATUS_MACROS_CONCAT(status_macro_or_, __LINE__), lhs, expr, __VA_ARGS__)

#define STATUS_MACROS_CONCAT_INNER(a, b) a##b
#define STATUS_MACROS_CONCAT(a, b) STATUS_MACROS_CONCAT_INNER(a, b)
#define STATUS_MACROS_ASSIGN(result, lhs, expr, ...)                                         \
  auto result = (expr);                                                                      \
  if (!result.ok()) [[unlikely]] {                                                           \
    return ::autosp::status_macros_internal::MaybeWithContext(result.status() __VA_OPT__(, ) \
                                                                  __VA_ARGS__);              \
  }                                                                                          \
  lhs = *std::move(result)
