#include "common/errors.h"

#include <cerrno>

#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

TEST(ErrorsTest, JoinsPartsUnderTheirCode) {
  EXPECT_THAT(InvalidArgument("sp_size (", 3, ") is odd"),
              IsError(absl::StatusCode::kInvalidArgument, "sp_size (3) is odd"));
  EXPECT_THAT(Unavailable("away"), IsError(absl::StatusCode::kUnavailable, "away"));
  EXPECT_THAT(DataLoss("cut"), IsError(absl::StatusCode::kDataLoss, "cut"));
}

TEST(ErrnoErrorTest, TellsKindsOfFailureApart) {
  const struct {
    int error_number;
    absl::StatusCode code;
  } cases[] = {
      {ENOENT, absl::StatusCode::kNotFound},
      {EEXIST, absl::StatusCode::kAlreadyExists},
      {EACCES, absl::StatusCode::kPermissionDenied},
      {ENOSPC, absl::StatusCode::kResourceExhausted},
      {EISDIR, absl::StatusCode::kInvalidArgument},
      {ECONNREFUSED, absl::StatusCode::kUnavailable},
      {EIO, absl::StatusCode::kUnknown},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(ErrnoError(c.error_number, "x").code(), c.code) << c.error_number;
  }
}

TEST(ErrnoErrorTest, SaysWhatTheSystemSaid) {
  EXPECT_EQ(ErrnoError(ENOENT, "cannot open /x").message(),
            "cannot open /x: No such file or directory");
}

}  // namespace
}  // namespace autosp
