#include "compiler/ir/text_cursor.h"

#include <cmath>
#include <limits>

#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

TEST(TextCursor, SkipsSpacesAndComments) {
  TextCursor cursor("  # a comment %x\n\t(name.part # another\n)");
  EXPECT_THAT(cursor.Expect('('), IsOk());
  EXPECT_THAT(cursor.Identifier(), IsOkAndHolds("name.part"));
  EXPECT_FALSE(cursor.AtEnd());
  EXPECT_TRUE(cursor.Consume(')'));
  EXPECT_TRUE(cursor.AtEnd());
  EXPECT_EQ(cursor.Peek(), '\0');
  EXPECT_FALSE(cursor.Consume('\0'));
}

TEST(TextCursor, ErrorsNameLineAndColumnOfTheToken) {
  TextCursor cursor("graph\n   # comment\n   %x");
  ASSERT_THAT(cursor.ExpectWord("graph"), IsOk());
  EXPECT_THAT(cursor.Expect(')'), IsError(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("line 3, column 4: expected ')', found '%'")));
  EXPECT_THAT(cursor.ExpectWord("return"), IsError(absl::StatusCode::kInvalidArgument,
                                                   HasSubstr("expected 'return', found '%'")));
  EXPECT_THAT(cursor.ValueName(), IsOkAndHolds("x"));
  EXPECT_THAT(cursor.Identifier(),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("found the end of the text")));
}

TEST(TextCursor, WordsAreWholeIdentifiers) {
  TextCursor cursor("returned");
  EXPECT_FALSE(cursor.ConsumeWord("return"));
  EXPECT_TRUE(cursor.ConsumeText("return"));
  EXPECT_TRUE(cursor.ConsumeWord("ed"));
}

TEST(TextCursor, IntegersMustFit64Bits) {
  TextCursor cursor("-9223372036854775808 9223372036854775807 9223372036854775808");
  EXPECT_THAT(cursor.Integer(), IsOkAndHolds(std::numeric_limits<int64_t>::min()));
  EXPECT_THAT(cursor.Integer(), IsOkAndHolds(std::numeric_limits<int64_t>::max()));
  EXPECT_THAT(cursor.Integer(),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("does not fit 64 bits")));
}

TEST(TextCursor, AnIntegerIsNotTheStartOfAFloat) {
  TextCursor cursor("1.5");
  EXPECT_THAT(cursor.Integer(), IsError(absl::StatusCode::kInvalidArgument, HasSubstr("integer")));
}

class DoubleRoundTrip : public testing::TestWithParam<double> {};

TEST_P(DoubleRoundTrip, PrintsWhatItReads) {
  const std::string text = FormatDouble(GetParam());
  TextCursor cursor(text);
  ASSERT_OK_AND_ASSIGN(const auto number, cursor.Number());
  ASSERT_TRUE(std::holds_alternative<double>(number)) << text;
  EXPECT_EQ(std::signbit(std::get<double>(number)), std::signbit(GetParam())) << text;
  if (std::isnan(GetParam())) {
    EXPECT_TRUE(std::isnan(std::get<double>(number)));
  } else {
    EXPECT_EQ(std::get<double>(number), GetParam()) << text;
  }
  EXPECT_TRUE(cursor.AtEnd());
}

INSTANTIATE_TEST_SUITE_P(Values, DoubleRoundTrip,
                         testing::Values(0.0, -0.0, 1.0, -3.0, 0.1, 1e-6, 1e300, 5e-324, 1.0 / 3,
                                         123456789012345678.0, std::numeric_limits<double>::max(),
                                         std::numeric_limits<double>::infinity(),
                                         -std::numeric_limits<double>::infinity(),
                                         std::numeric_limits<double>::quiet_NaN()));

TEST(TextCursor, QuotedStringsRoundTrip) {
  const std::string text("a \"quoted\" \\ line\n\ttab \x01\xff # no comment", 38);
  const std::string quoted = FormatQuoted(text);
  EXPECT_EQ(quoted.find('\n'), std::string::npos);
  TextCursor cursor(quoted);
  EXPECT_THAT(cursor.QuotedString(), IsOkAndHolds(text));
}

TEST(TextCursor, RefusesBrokenStrings) {
  for (const char* text : {"\"no end", "\"line\nbreak\"", "\"bad \\q\"", "\"bad \\x4\"", "plain"}) {
    TextCursor cursor(text);
    EXPECT_FALSE(cursor.QuotedString().ok()) << text;
  }
}

TEST(TextCursor, UntilStaysOnItsLine) {
  TextCursor cursor("{s0 + 1} rest\n}");
  ASSERT_THAT(cursor.Expect('{'), IsOk());
  EXPECT_THAT(cursor.Until('}'), IsOkAndHolds("s0 + 1"));
  EXPECT_FALSE(cursor.Until('}').ok());
}

}  // namespace
}  // namespace autosp
