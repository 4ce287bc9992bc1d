#include "common/log.h"

#include <filesystem>
#include <string>

#include "common/file.h"
#include "common/subprocess.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

using testing::internal::CaptureStderr;
using testing::internal::GetCapturedStderr;

class LogTest : public testing::Test {
 protected:
  ~LogTest() override {
    SetLogLevel(LogLevel::kInfo);
    InitLogging("");
  }
};

TEST_F(LogTest, NamesTimeLevelAndProcess) {
  InitLogging("agent", "node-0");
  CaptureStderr();
  LogInfo("rank ", 1, " started");
  EXPECT_THAT(GetCapturedStderr(),
              testing::MatchesRegex("[0-9-]+T[0-9:]+\\.[0-9]+Z I agent.node-0. rank 1 started\n"));
}

TEST_F(LogTest, TakesNamesAndMessagesLiterally) {
  InitLogging("coordinator", "50%v");
  CaptureStderr();
  LogWarning("loss is {} of 100%");
  EXPECT_THAT(GetCapturedStderr(), testing::EndsWith("W coordinator[50%v] loss is {} of 100%\n"));
}

TEST_F(LogTest, KeepsAnEventOnOneLine) {
  CaptureStderr();
  LogError("first\nsecond");
  EXPECT_THAT(GetCapturedStderr(), testing::EndsWith("first\\nsecond\n"));
}

TEST_F(LogTest, DropsWhatIsBelowTheLevel) {
  SetLogLevel(LogLevel::kError);
  EXPECT_FALSE(IsLogged(LogLevel::kWarning));
  EXPECT_TRUE(IsLogged(LogLevel::kError));
  CaptureStderr();
  LogWarning("unseen");
  LogDebug("unseen");
  EXPECT_EQ(GetCapturedStderr(), "");
}

TEST_F(LogTest, OffSilencesEverything) {
  SetLogLevel(LogLevel::kOff);
  CaptureStderr();
  LogError("unseen");
  EXPECT_EQ(GetCapturedStderr(), "");
}

// Runs in a process of its own, because AUTOSP_LOG is read once.
TEST_F(LogTest, DISABLED_Chatter) {
  LogDebug("at debug");
  LogInfo("at info");
  LogWarning("at warning");
}

std::string ChatterWith(const std::string& level) {
  SubprocessOptions options;
  options.argv = {std::filesystem::read_symlink("/proc/self/exe").string(),
                  "--gtest_also_run_disabled_tests", "--gtest_filter=LogTest.DISABLED_Chatter"};
  options.env = {"AUTOSP_LOG=" + level};
  const TempDir dir;
  options.output = SubprocessOptions::Output::kFile;
  options.output_path = dir.Join("out");
  auto process = Subprocess::Start(options);
  EXPECT_TRUE(process.ok() && process->Wait().ok());
  return ReadFile(dir.Join("out"), 1 << 20).value_or("");
}

TEST_F(LogTest, TakesTheLevelFromTheEnvironment) {
  EXPECT_THAT(ChatterWith("debug"), testing::HasSubstr("at debug"));
  const std::string warning = ChatterWith("warning");
  EXPECT_THAT(warning, testing::HasSubstr("at warning"));
  EXPECT_THAT(warning, testing::Not(testing::HasSubstr("at info")));
}

TEST_F(LogTest, SaysWhenTheEnvironmentIsWrong) {
  const std::string output = ChatterWith("loud");
  EXPECT_THAT(output, testing::HasSubstr("AUTOSP_LOG (loud) is not one of debug, info"));
  EXPECT_THAT(output, testing::HasSubstr("at info"));
  EXPECT_THAT(output, testing::Not(testing::HasSubstr("at debug")));
}

}  // namespace
}  // namespace autosp
