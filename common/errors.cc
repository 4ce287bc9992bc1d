#include "common/errors.h"

#include <cerrno>
#include <system_error>

#include "absl/status/status.h"

namespace autosp {
namespace {

absl::StatusCode CodeOfErrno(int error_number) {
  switch (error_number) {
    case ENOENT:
      return absl::StatusCode::kNotFound;
    case EEXIST:
      return absl::StatusCode::kAlreadyExists;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return absl::StatusCode::kResourceExhausted;
    case ENOTDIR:
    case EISDIR:
    case ENAMETOOLONG:
    case ELOOP:
    case EINVAL:
      return absl::StatusCode::kInvalidArgument;
    case ENOTEMPTY:
    case EADDRINUSE:
      return absl::StatusCode::kFailedPrecondition;
    case EAGAIN:
    case EBUSY:
    case ECONNREFUSED:
    case ECONNRESET:
      return absl::StatusCode::kUnavailable;
    case ETIMEDOUT:
      return absl::StatusCode::kDeadlineExceeded;
    default:
      return absl::StatusCode::kUnknown;
  }
}

}  // namespace

absl::Status ErrnoError(int error_number, absl::string_view what) {
  // generic_category is safe between threads, which strerror is not.
  return absl::Status(CodeOfErrno(error_number),
                      absl::StrCat(what, ": ", std::generic_category().message(error_number)));
}

}  // namespace autosp
