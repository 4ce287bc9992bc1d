#include "common/program_output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace autosp {
namespace {

using ::testing::HasSubstr;

TEST(ProgramOutputTest, GivesTextAndEnd) {
  const auto output = RunForOutput({"/bin/sh", "-c", "echo out; echo err >&2; exit 3"}, 1000);
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_EQ(output->text, "out\nerr\n");
  EXPECT_EQ(output->exit.ToString(), "exited with code 3");
}

TEST(ProgramOutputTest, EndsAProgramThatPrintsWithoutEnd) {
  const auto output = RunForOutput({"/bin/sh", "-c", "while :; do echo again; done"}, 10000);
  EXPECT_THAT(std::string(output.status().message()), HasSubstr("prints more than 10000 bytes"));
}

TEST(ProgramOutputTest, NamesAProgramThatIsMissing) {
  const auto output = RunForOutput({"/nonexistent/program"}, 1000);
  EXPECT_THAT(std::string(output.status().message()), HasSubstr("/nonexistent/program"));
}

}  // namespace
}  // namespace autosp
