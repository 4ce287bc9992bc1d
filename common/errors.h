// Errors of the kinds that this program reports, made from parts.
//
//   return InvalidArgument("sp_size (", sp_size, ") does not divide ", num_heads);
//
// A message names the subject as the user wrote it, the value, the rule and what to do; it is lower
// case and has no full stop, because callers put context in front (WithContext).

#pragma once

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace autosp {

// The caller gave something that can never be right, whatever the state of the system.
template <typename... Parts>
absl::Status InvalidArgument(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

template <typename... Parts>
absl::Status NotFound(const Parts&... parts) {
  return absl::NotFoundError(absl::StrCat(parts...));
}

template <typename... Parts>
absl::Status AlreadyExists(const Parts&... parts) {
  return absl::AlreadyExistsError(absl::StrCat(parts...));
}

// Refused in the present state; the same request may be right in another.
template <typename... Parts>
absl::Status FailedPrecondition(const Parts&... parts) {
  return absl::FailedPreconditionError(absl::StrCat(parts...));
}

// Lost a race (a compare-and-set, a stale generation): read again, then decide again.
template <typename... Parts>
absl::Status Aborted(const Parts&... parts) {
  return absl::AbortedError(absl::StrCat(parts...));
}

// Past a limit: memory, disk, a queue, a message size.
template <typename... Parts>
absl::Status ResourceExhausted(const Parts&... parts) {
  return absl::ResourceExhaustedError(absl::StrCat(parts...));
}

template <typename... Parts>
absl::Status DeadlineExceeded(const Parts&... parts) {
  return absl::DeadlineExceededError(absl::StrCat(parts...));
}

// The other side is away for now; the same call may work later.
template <typename... Parts>
absl::Status Unavailable(const Parts&... parts) {
  return absl::UnavailableError(absl::StrCat(parts...));
}

template <typename... Parts>
absl::Status Cancelled(const Parts&... parts) {
  return absl::CancelledError(absl::StrCat(parts...));
}

template <typename... Parts>
absl::Status PermissionDenied(const Parts&... parts) {
  return absl::PermissionDeniedError(absl::StrCat(parts...));
}

// Right in itself, but not supported yet. Say what would be.
template <typename... Parts>
absl::Status Unimplemented(const Parts&... parts) {
  return absl::UnimplementedError(absl::StrCat(parts...));
}

// Bytes that should be whole are not: a truncated file, a wrong digest.
template <typename... Parts>
absl::Status DataLoss(const Parts&... parts) {
  return absl::DataLossError(absl::StrCat(parts...));
}

// An invariant of ours does not hold: a bug here, not a mistake of the caller.
template <typename... Parts>
absl::Status Internal(const Parts&... parts) {
  return absl::InternalError(absl::StrCat(parts...));
}

// A failed system call: "cannot open /data/x: No such file or directory". The code follows errno,
// so that callers can tell a missing file from a full disk.
absl::Status ErrnoError(int error_number, absl::string_view what);

}  // namespace autosp
