#include "common/status_macros.h"

#include <memory>
#include <string>

#include "common/errors.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

absl::StatusOr<int> Half(int value) {
  if (value % 2 != 0) return InvalidArgument(value, " is odd");
  return value / 2;
}

absl::StatusOr<int> Quarter(int value) {
  ASSIGN_OR_RETURN(const int half, Half(value));
  ASSIGN_OR_RETURN(const int quarter, Half(half), "half of ", value);
  return quarter;
}

absl::Status Check(const absl::Status& status, int& steps) {
  RETURN_IF_ERROR(status);
  ++steps;
  return absl::OkStatus();
}

TEST(StatusMacrosTest, PassesValues) { EXPECT_THAT(Quarter(8), IsOkAndHolds(2)); }

TEST(StatusMacrosTest, ReturnsFirstErrorAsItIs) {
  EXPECT_THAT(Quarter(7), IsError(absl::StatusCode::kInvalidArgument, "7 is odd"));
}

TEST(StatusMacrosTest, PutsContextInFront) {
  EXPECT_THAT(Quarter(6), IsError(absl::StatusCode::kInvalidArgument, "half of 6: 3 is odd"));
}

TEST(StatusMacrosTest, StopsAtAnErrorOnly) {
  int steps = 0;
  EXPECT_THAT(Check(absl::OkStatus(), steps), IsOk());
  EXPECT_EQ(steps, 1);
  EXPECT_THAT(Check(Internal("broken"), steps), IsError(absl::StatusCode::kInternal, "broken"));
  EXPECT_EQ(steps, 1);
}

TEST(StatusMacrosTest, MovesOutOfTheResult) {
  const auto make = []() -> absl::StatusOr<std::unique_ptr<int>> {
    return std::make_unique<int>(5);
  };
  const auto use = [&]() -> absl::StatusOr<int> {
    ASSIGN_OR_RETURN(const std::unique_ptr<int> value, make());
    return *value;
  };
  EXPECT_THAT(use(), IsOkAndHolds(5));
}

TEST(WithContextTest, LeavesOkAlone) { EXPECT_THAT(WithContext(absl::OkStatus(), "x"), IsOk()); }

TEST(WithContextTest, KeepsCodeAndPayloads) {
  absl::Status status = Aborted("lost");
  status.SetPayload("type/a", absl::Cord("payload"));
  const absl::Status result = WithContext(status, "job ", 7);
  EXPECT_THAT(result, IsError(absl::StatusCode::kAborted, "job 7: lost"));
  EXPECT_EQ(result.GetPayload("type/a"), absl::Cord("payload"));
}

}  // namespace
}  // namespace autosp
