#include "common/bytes.h"

#include <limits>

#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using testing::HasSubstr;

TEST(ParseBytesTest, ReadsUnits) {
  const struct {
    const char* text;
    int64_t bytes;
  } cases[] = {
      {"0", 0},
      {"4096", 4096},
      {"4096B", 4096},
      {"16GiB", int64_t{16} << 30},
      {" 16 GiB ", int64_t{16} << 30},
      {"80GB", 80'000'000'000},
      {"1.5 MB", 1'500'000},
      {"1.5 KiB", 1536},
      {"0.3MiB", 314573},
      {"8191PiB", int64_t{8191} << 50},
  };
  for (const auto& c : cases) EXPECT_THAT(ParseBytes(c.text), IsOkAndHolds(c.bytes)) << c.text;
}

TEST(ParseBytesTest, RefusesWhatIsNotAnAmount) {
  for (const char* text : {"", " ", "GiB", "-1", "-1GiB", ".5GiB", "1.GiB", "1.2.3MB", "+3", "0x10",
                           "nan", "1e9", "1,5 MB", "16 GiB x"}) {
    EXPECT_THAT(ParseBytes(text),
                IsError(absl::StatusCode::kInvalidArgument, HasSubstr("write for example 16GiB")))
        << text;
  }
}

TEST(ParseBytesTest, RefusesAmbiguousUnits) {
  EXPECT_THAT(ParseBytes("16G"),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("unknown unit \"G\"")));
  EXPECT_THAT(ParseBytes("16gib"),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("unknown unit \"gib\"")));
}

TEST(ParseBytesTest, RefusesOverflow) {
  EXPECT_THAT(ParseBytes("8192PiB"),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("above 8 EiB")));
  EXPECT_THAT(ParseBytes("9223372036854775808"),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("too many digits")));
}

TEST(FormatBytesTest, KeepsThreeDigits) {
  const struct {
    int64_t bytes;
    const char* text;
  } cases[] = {
      {0, "0 B"},
      {512, "512 B"},
      {1023, "1023 B"},
      {1024, "1.00 KiB"},
      {1536, "1.50 KiB"},
      {12'900'000, "12.3 MiB"},
      {int64_t{123} << 30, "123 GiB"},
      {-2048, "-2.00 KiB"},
  };
  for (const auto& c : cases) EXPECT_EQ(FormatBytes(c.bytes), c.text);
}

TEST(FormatBytesExactlyTest, RoundTrips) {
  for (int shift = 0; shift < 63; ++shift) {
    for (const int64_t delta : {-1, 0, 1}) {
      const int64_t bytes = (int64_t{1} << shift) + delta;
      const std::string text = FormatBytesExactly(bytes);
      EXPECT_THAT(ParseBytes(text), IsOkAndHolds(bytes)) << text;
    }
  }
  const int64_t most = std::numeric_limits<int64_t>::max();
  EXPECT_THAT(ParseBytes(FormatBytesExactly(most)), IsOkAndHolds(most));
  EXPECT_EQ(FormatBytesExactly(int64_t{3} << 29), "1536MiB");
  EXPECT_EQ(FormatBytesExactly(5'000'000'000), "5GB");
  EXPECT_EQ(FormatBytesExactly(1024000), "1000KiB");
  EXPECT_EQ(FormatBytesExactly(1001), "1001B");
  EXPECT_EQ(FormatBytesExactly(0), "0B");
}

}  // namespace
}  // namespace autosp
