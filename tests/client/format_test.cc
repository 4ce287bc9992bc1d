#include "client/format.h"

#include <cmath>

#include "client/exit_code.h"
#include "client/text_table.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

TEST(FormatCount, GroupsThousands) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(-1234567), "-1,234,567");
  EXPECT_EQ(FormatCount(-100), "-100");
}

TEST(FormatLoss, KeepsDigitsThatMatter) {
  EXPECT_EQ(FormatLoss(5.54321), "5.5432");
  EXPECT_EQ(FormatLoss(0.0), "0.0000");
  EXPECT_EQ(FormatLoss(0.00012345), "1.234e-04");
  EXPECT_EQ(FormatLoss(std::nan("")), "nan");
  EXPECT_EQ(FormatLoss(-HUGE_VAL), "-inf");
}

TEST(Printable, LetsNothingSteerTheTerminal) {
  EXPECT_EQ(Printable("plain\n\ttext \xc3\xb6 \xe2\x82\xac"),
            "plain\n\ttext \xc3\xb6 \xe2\x82\xac");
  EXPECT_EQ(Printable("op \x1b[2J\r\x7f"), "op \\x1b[2J\\x0d\\x7f");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "2J \xc2\xb0"),
            "\\xc2\\x9b2J \xc2\xb0");
  EXPECT_EQ(Printable("\xc2"), "\xc2");
}

TEST(FormatRate, ShowsADecimalOnlyWhenSmall) {
  EXPECT_EQ(FormatRate(3.24), "3.2");
  EXPECT_EQ(FormatRate(1234.4), "1,234");
  EXPECT_EQ(FormatRate(HUGE_VAL), "?");
}

TEST(FormatSpan, UsesTwoUnits) {
  EXPECT_EQ(FormatSpan(absl::ZeroDuration()), "0s");
  EXPECT_EQ(FormatSpan(absl::Seconds(59.4)), "59s");
  EXPECT_EQ(FormatSpan(absl::Seconds(59.6)), "1m00s");
  EXPECT_EQ(FormatSpan(absl::Seconds(125)), "2m05s");
  EXPECT_EQ(FormatSpan(absl::Minutes(187)), "3h07m");
  EXPECT_EQ(FormatSpan(absl::Hours(52)), "2d04h");
  EXPECT_EQ(FormatSpan(absl::Seconds(-1)), "?");
  EXPECT_EQ(FormatSpan(absl::InfiniteDuration()), "?");
}

TEST(FormatState, IsTheWordOfTheEnum) {
  EXPECT_EQ(FormatState(v1::JOB_STATE_SUCCEEDED), "succeeded");
  EXPECT_EQ(FormatState(v1::RANK_STATE_LOST), "lost");
  EXPECT_EQ(FormatState(v1::Node::STATE_READY), "ready");
  EXPECT_EQ(ParseJobState("succeeded"), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(ParseJobState("done"), v1::JOB_STATE_UNSPECIFIED);
}

TEST(TextTable, AlignsColumns) {
  TextTable table({{"NAME"}, {"STEP", TextTable::Align::kRight}, {"REASON"}});
  table.AddRow({"llama", "10/200", ""});
  table.AddRow({"b\xc3\xa4r", "9", "waits"});  // "baer" with an umlaut: three characters
  EXPECT_EQ(table.ToString(),
            "NAME     STEP  REASON\n"
            "llama  10/200\n"
            "b\xc3\xa4r         9  waits\n");
}

TEST(ExitCodeOf, SeparatesTheUsersMistakesFromOurs) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), ExitCode::kOk);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("")), ExitCode::kBadInput);
  EXPECT_EQ(ExitCodeOf(absl::FailedPreconditionError("")), ExitCode::kBadInput);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), ExitCode::kUnreachable);
  EXPECT_EQ(ExitCodeOf(absl::DeadlineExceededError("")), ExitCode::kUnreachable);
  EXPECT_EQ(ExitCodeOf(absl::NotFoundError("")), ExitCode::kNotFound);
  EXPECT_EQ(ExitCodeOf(absl::CancelledError("")), ExitCode::kInterrupted);
  EXPECT_EQ(ExitCodeOf(absl::InternalError("")), ExitCode::kFailed);
  EXPECT_EQ(ExitCodeOf(absl::ResourceExhaustedError("")), ExitCode::kFailed);
}

}  // namespace
}  // namespace autosp
