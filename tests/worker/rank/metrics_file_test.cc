#include "worker/rank/metrics_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "common/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class CountingReporter final : public RankReporter {
 public:
  void Hello(const std::string& /*program_digest*/) override {}
  void Step(const StepInfo& info) override { steps.push_back(info.step); }
  void Checkpoint(const CheckpointInfo& info) override { checkpoints.push_back(info.step); }
  void Finished(const std::vector<OutputInfo>& /*outputs*/) override {}
  void Verified(const VerificationResult& /*result*/) override {}
  void Failed(const FailureInfo& /*info*/) override {}
  absl::Status Close() override { return absl::OkStatus(); }

  std::vector<int64_t> steps;
  std::vector<int64_t> checkpoints;
};

StepInfo FullStep(int64_t step) {
  return {.step = step,
          .loss = 2.5,
          .tokens = 128,
          .step_seconds = 0.5,
          .learning_rate = 0.001,
          .grad_norm = 1.25,
          .validation_loss = 2.75,
          .memory = {{"device", {.current_bytes = 10, .peak_bytes = 20}}},
          .collectives = {{.kind = "all_to_all",
                           .phase = "forward",
                           .calls = 4,
                           .bytes_received = 1024,
                           .seconds = 0.125}}};
}

TEST(StepToJsonTest, HasEveryNumberInOneLine) {
  EXPECT_EQ(StepToJson(FullStep(3)),
            R"({"step":3,"loss":2.5,"validation_loss":2.75,"grad_norm":1.25,)"
            R"("learning_rate":0.001,"tokens":128,"step_seconds":0.5,"tokens_per_second":256.0,)"
            R"("memory":{"device":{"current_bytes":10,"peak_bytes":20}},)"
            R"("collectives":[{"kind":"all_to_all","phase":"forward","calls":4,)"
            R"("bytes_received":1024,"seconds":0.125}]})");
}

TEST(StepToJsonTest, LeavesOutWhatIsNotKnown) {
  StepInfo info = FullStep(1);
  info.grad_norm.reset();
  info.validation_loss.reset();
  info.step_seconds = 0;
  info.loss = std::numeric_limits<double>::quiet_NaN();
  const auto json = nlohmann::json::parse(StepToJson(info));
  EXPECT_TRUE(json["loss"].is_null());
  for (const char* key : {"grad_norm", "validation_loss", "tokens_per_second"}) {
    EXPECT_FALSE(json.contains(key)) << key;
  }
}

TEST(MetricsFileTest, GrowsByWholeLinesAndPassesReportsOn) {
  const TempDir dir;
  const std::string folder = JoinPath(dir.path(), "new/out");
  const std::string path = JoinPath(folder, "metrics.jsonl");
  CountingReporter next;
  ASSERT_OK_AND_ASSIGN(const auto file, MetricsFile::Create(folder, 0, next));
  for (int64_t step = 1; step <= 3; ++step) {
    file->Step(FullStep(step));
    file->Checkpoint({.step = step});
    ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path, 1 << 20));
    ASSERT_TRUE(absl::EndsWith(text, "\n"));
    const std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
    ASSERT_EQ(std::ssize(lines), step) << "a step is there as soon as it is done";
    EXPECT_EQ(lines.back(), StepToJson(FullStep(step)));
  }
  EXPECT_THAT(next.steps, ElementsAre(1, 2, 3));
  EXPECT_THAT(next.checkpoints, ElementsAre(1, 2, 3));
  ASSERT_OK_AND_ASSIGN(const OutputInfo output, file->Output());
  EXPECT_EQ(output.kind, "metrics");
  EXPECT_EQ(output.path, path);
  EXPECT_THAT(Sha256HexOfFile(path), IsOkAndHolds(output.sha256));
  EXPECT_THAT(FileSize(path), IsOkAndHolds(output.size_bytes));
}

TEST(MetricsFileTest, BeginsAnewForAnotherAttempt) {
  const TempDir dir;
  CountingReporter next;
  ASSERT_OK_AND_ASSIGN(const auto first, MetricsFile::Create(dir.path(), 0, next));
  first->Step(FullStep(1));
  ASSERT_OK_AND_ASSIGN(const auto second, MetricsFile::Create(dir.path(), 0, next));
  EXPECT_THAT(ReadFile(JoinPath(dir.path(), "metrics.jsonl"), 1 << 20), IsOkAndHolds(IsEmpty()));
}

TEST(MetricsFileTest, KeepsTheStepsThatAreNotDoneAgain) {
  const TempDir dir;
  const std::string path = JoinPath(dir.path(), "metrics.jsonl");
  std::string lines[6];
  for (int64_t step = 1; step <= 5; ++step) lines[step] = StepToJson(FullStep(step)) + "\n";
  struct Case {
    std::string found;
    int64_t num_done;
    std::string kept;
  };
  const Case cases[] = {
      {lines[1] + lines[2] + lines[3], 2, lines[1] + lines[2]},
      {lines[1] + lines[2] + lines[3], 9, lines[1] + lines[2] + lines[3]},
      {lines[1] + lines[2], 0, ""},
      {lines[3] + lines[4], 4, lines[3] + lines[4]},     // It went on from another job.
      {lines[1] + lines[2].substr(0, 20), 4, lines[1]},  // A crash cut the last one off.
      {lines[1] + lines[2].substr(0, lines[2].size() - 1), 4, lines[1]},
      {lines[1] + lines[2] + lines[2], 4, lines[1] + lines[2]},
      {lines[1] + "{}\n" + lines[2], 4, lines[1]},
      {"[\"step\"]\n" + lines[1], 4, ""},
      {"", 4, ""},
  };
  for (const Case& each : cases) {
    ASSERT_THAT(WriteFileAtomically(path, each.found), IsOk());
    CountingReporter next;
    ASSERT_OK_AND_ASSIGN(const auto file, MetricsFile::Create(dir.path(), each.num_done, next));
    file->Step(FullStep(5));
    EXPECT_THAT(ReadFile(path, 1 << 20), IsOkAndHolds(each.kept + lines[5]));
  }
}

TEST(MetricsFileTest, AFullDiskEndsTheFileAndNotTheJob) {
  const TempDir dir;
  ASSERT_EQ(symlink("/dev/full", JoinPath(dir.path(), "metrics.jsonl").c_str()), 0);
  CountingReporter next;
  ASSERT_OK_AND_ASSIGN(const auto file, MetricsFile::Create(dir.path(), 0, next));
  file->Step(FullStep(1));
  file->Step(FullStep(2));
  EXPECT_THAT(next.steps, ElementsAre(1, 2));
  EXPECT_EQ(file->Output().status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(MetricsFileTest, SaysWhereItCannotWrite) {
  const TempDir dir;
  ASSERT_EQ(mkdir(JoinPath(dir.path(), "metrics.jsonl").c_str(), 0755), 0);
  CountingReporter next;
  const auto file = MetricsFile::Create(dir.path(), 0, next);
  ASSERT_FALSE(file.ok());
  EXPECT_THAT(std::string(file.status().message()), HasSubstr("metrics.jsonl"));
}

}  // namespace
}  // namespace autosp
