// gmock matchers for absl::Status and absl::StatusOr.
//
//   EXPECT_THAT(ReadFile(path, 10), IsOk());
//   EXPECT_THAT(ParseBytes("16G"), IsError(absl::StatusCode::kInvalidArgument, HasSubstr("unit")));
//   ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path, 10));

#pragma once

#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace autosp {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

MATCHER(IsOk, negation ? "is an error" : "is ok") {
  *result_listener << StatusOf(arg);
  return StatusOf(arg).ok();
}

// `message` matches the text of the error.
MATCHER_P2(IsError, code, message,
           std::string("is an error of code ") + absl::StatusCodeToString(code) +
               " whose message " + testing::DescribeMatcher<std::string>(message)) {
  const absl::Status& status = StatusOf(arg);
  *result_listener << status;
  return status.code() == code &&
         testing::ExplainMatchResult(message, std::string(status.message()), result_listener);
}

// `value` matches what an ok StatusOr holds.
MATCHER_P(IsOkAndHolds, value, "is ok and holds the right value") {
  *result_listener << StatusOf(arg);
  return arg.ok() && testing::ExplainMatchResult(value, *arg, result_listener);
}

}  // namespace autosp

#define AUTOSP_TEST_CONCAT_INNER(a, b) a##b
#define AUTOSP_TEST_CONCAT(a, b) AUTOSP_TEST_CONCAT_INNER(a, b)
#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  AUTOSP_ASSERT_OK_AND_ASSIGN(AUTOSP_TEST_CONCAT(result_, __LINE__), lhs, expr)
#define AUTOSP_ASSERT_OK_AND_ASSIGN(result, lhs, expr) \
  auto result = (expr);                                \
  ASSERT_THAT(result, ::autosp::IsOk());               \
  lhs = *std::move(result)
