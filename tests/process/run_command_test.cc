// `autosp-cli run` with everything real: a stock archive, a coordinator, an agent, two ranks.
#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/file.h"
#include "common/ids.h"
#include "common/subprocess.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

namespace fs = std::filesystem;

constexpr int64_t kMaxOutputBytes = 16 << 20;
constexpr absl::Duration kEndTimeout = absl::Seconds(120);

class RunCommandTest : public testing::Test {
 protected:
  RunCommandTest() : mark_(RandomId("AUTOSP_TEST_MARK")) {
    std::string text;
    for (int i = 0; i < 400; ++i) absl::StrAppend(&text, "def f", i, "(x):\n  return x + 1\n");
    EXPECT_THAT(WriteFileAtomically(dir_.Join("text.py"), text), IsOk());
    EXPECT_THAT(MakeDirectories(dir_.Join("tmp")), IsOk());
  }

  // A small job; `overrides` are of --set.
  absl::StatusOr<Subprocess> StartRun(const std::vector<std::string>& overrides) {
    SubprocessOptions options;
    const std::string job = absl::StrCat(AUTOSP_SOURCE_DIR, "/examples/llama-text/job.yaml");
    options.argv = {JoinPath(std::getenv("AUTOSP_BIN"), "autosp-cli"),
                    "run",
                    job,
                    "--output",
                    "json",
                    "--devices",
                    "2"};
    std::vector<std::string> sets = {absl::StrCat("data.files=", dir_.Join("text.py")),
                                     absl::StrCat("output.dir=", dir_.Join("out")),
                                     "training.seq_len=64",
                                     "training.global_batch_size=2",
                                     "training.steps=4",
                                     "training.schedule.warmup_steps=0",
                                     "data.validation={}"};
    sets.insert(sets.end(), overrides.begin(), overrides.end());
    for (const std::string& set : sets) options.argv.insert(options.argv.end(), {"--set", set});
    // Every process below inherits the mark; temporary folders go where the test sees them.
    options.env = {absl::StrCat(mark_, "=1"), absl::StrCat("TMPDIR=", dir_.Join("tmp"))};
    options.output = SubprocessOptions::Output::kFile;
    options.output_path = dir_.Join("output");
    return Subprocess::Start(options);
  }

  std::string Output() { return ReadFile(dir_.Join("output"), kMaxOutputBytes).value_or(""); }

  // The last line, which has the job.
  nlohmann::json Job() {
    std::istringstream lines(Output());
    nlohmann::json job;
    for (std::string line; std::getline(lines, line);) {
      const auto parsed = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (parsed.is_object() && parsed.contains("job")) job = parsed["job"];
    }
    return job;
  }

  // Processes that the run has started, in whatever way.
  std::vector<std::string> MarkedProcesses() {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const auto environment = ReadFile((entry.path() / "environ").string(), kMaxOutputBytes);
      if (!environment.ok() || !absl::StrContains(*environment, mark_)) continue;
      const auto name = ReadFile((entry.path() / "comm").string(), 100);
      found.push_back(absl::StrCat(entry.path().filename().string(), " ", name.value_or("?")));
    }
    return found;
  }

  void ExpectNothingLeft() {
    const absl::Time give_up = absl::Now() + absl::Seconds(20);
    while (!MarkedProcesses().empty() && absl::Now() < give_up) {
      absl::SleepFor(absl::Milliseconds(50));
    }
    EXPECT_THAT(MarkedProcesses(), testing::IsEmpty());
  }

  // Waits until the job has finished a step.
  void AwaitStep(Subprocess& run) {
    const absl::Time give_up = absl::Now() + kEndTimeout;
    while (!absl::StrContains(Output(), "step_finished")) {
      ASSERT_FALSE(run.Poll().has_value()) << Output();
      ASSERT_LT(absl::Now(), give_up) << Output();
      absl::SleepFor(absl::Milliseconds(20));
    }
  }

  TempDir dir_;
  const std::string mark_;
};

TEST_F(RunCommandTest, TrainsAndLeavesOnlyItsOutputs) {
  ASSERT_OK_AND_ASSIGN(Subprocess run, StartRun({}));
  const std::optional<ExitState> exit = run.WaitFor(kEndTimeout);
  ASSERT_TRUE(exit.has_value()) << Output();
  ASSERT_TRUE(exit->ok()) << exit->ToString() << "\n" << Output();
  const nlohmann::json job = Job();
  EXPECT_EQ(job["state"], "succeeded");
  EXPECT_EQ(job["progress"]["last_step"], 4);
  EXPECT_LT(job["progress"]["last_loss"], 5.6);  // ln 256, and less with every step.
  bool has_weights = false;
  for (const nlohmann::json& output : job["outputs"]) {
    EXPECT_TRUE(FileExists(output["path"])) << output;
    has_weights = has_weights || output["kind"] == "weights";
  }
  EXPECT_TRUE(has_weights) << job["outputs"];
  ExpectNothingLeft();
  EXPECT_TRUE(fs::is_empty(dir_.Join("tmp")));
}

TEST_F(RunCommandTest, AnInterruptCancelsAndStopsEverything) {
  ASSERT_OK_AND_ASSIGN(Subprocess run, StartRun({"training.steps=100000"}));
  AwaitStep(run);
  kill(run.pid(), SIGINT);
  const std::optional<ExitState> exit = run.WaitFor(absl::Seconds(60));
  ASSERT_TRUE(exit.has_value()) << Output();
  EXPECT_EQ(exit->ToString(), "exited with code 130") << Output();
  EXPECT_EQ(Job()["state"], "cancelled") << Output();
  ExpectNothingLeft();
  EXPECT_TRUE(fs::is_empty(dir_.Join("tmp")));
}

TEST_F(RunCommandTest, AKillLeavesNoProcess) {
  ASSERT_OK_AND_ASSIGN(Subprocess run, StartRun({"training.steps=100000"}));
  AwaitStep(run);
  EXPECT_GE(MarkedProcesses().size(), 5u);  // The command, two servers, two ranks.
  kill(run.pid(), SIGKILL);
  run.Wait();
  ExpectNothingLeft();
}

TEST_F(RunCommandTest, AFailedJobIsNamedWithItsCause) {
  ASSERT_OK_AND_ASSIGN(Subprocess run, StartRun({"training.optimizer.lr=1.0e+30"}));
  const std::optional<ExitState> exit = run.WaitFor(kEndTimeout);
  ASSERT_TRUE(exit.has_value()) << Output();
  EXPECT_EQ(exit->ToString(), "exited with code 1") << Output();
  const nlohmann::json job = Job();
  EXPECT_EQ(job["state"], "failed");
  EXPECT_THAT(job["cause"]["message"].get<std::string>(), HasSubstr("step"));
  ExpectNothingLeft();
}

TEST_F(RunCommandTest, AJobThatDoesNotFitStartsNoRank) {
  ASSERT_OK_AND_ASSIGN(Subprocess run,
                       StartRun({"parallelism.ranks=64", "parallelism.ulysses=64"}));
  const std::optional<ExitState> exit = run.WaitFor(kEndTimeout);
  ASSERT_TRUE(exit.has_value()) << Output();
  EXPECT_EQ(exit->ToString(), "exited with code 2") << Output();
  ExpectNothingLeft();
}

}  // namespace
}  // namespace autosp
