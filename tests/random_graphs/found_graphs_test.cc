// Graphs that random runs found to fail, made small; all of them are right by now, or refused with
// a reason.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "tests/common/status_matchers.h"
#include "tests/random_graphs/case_text.h"
#include "tests/random_graphs/run_case.h"

namespace autosp {
namespace {

constexpr int64_t kMaxBytes = 1 << 20;

std::vector<std::string> FoundGraphs() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(
           absl::StrCat(AUTOSP_SOURCE_DIR, "/tests/random_graphs/found"))) {
    names.push_back(entry.path().stem().string());
  }
  std::ranges::sort(names);
  return names;
}

class FoundGraphTest : public testing::TestWithParam<std::string> {};

TEST_P(FoundGraphTest, EqualsTheGraphRunEagerly) {
  ASSERT_OK_AND_ASSIGN(
      const std::string text,
      ReadFile(absl::StrCat(AUTOSP_SOURCE_DIR, "/tests/random_graphs/found/", GetParam(), ".txt"),
               kMaxBytes));
  ASSERT_OK_AND_ASSIGN(const RandomCase found, ParseCase(text));
  const RunOutcome outcome = RunCase(found);
  EXPECT_EQ(outcome.result, CaseResult::kEqual) << outcome.message;
  // What is written is read again.
  ASSERT_OK_AND_ASSIGN(const RandomCase again, ParseCase(PrintCase(found)));
  EXPECT_EQ(PrintCase(again), PrintCase(found));
}

INSTANTIATE_TEST_SUITE_P(Found, FoundGraphTest, testing::ValuesIn(FoundGraphs()),
                         [](const testing::TestParamInfo<std::string>& info) {
                           return info.param;
                         });

TEST(CaseTextTest, RefusesWhatSaysNoMesh) {
  EXPECT_THAT(ParseCase("graph \"g\" {\n}\n"),
              IsError(absl::StatusCode::kInvalidArgument, testing::HasSubstr("says no accum")));
  EXPECT_FALSE(ParseCase("# accum=1 dp=1 ring=1 ulysses=1 batch=1 seq_len=4 seed=1\ngraph {").ok());
}

// What a run says of graphs that have no plan, or none that is right.
TEST(RunCaseTest, NamesWhatIsWrong) {
  const auto run = [](const std::string& node) {
    const auto parsed = ParseCase(
        absl::StrCat("# accum=1 dp=1 ring=1 ulysses=2 batch=2 seq_len=4 seed=1\ngraph \"g\" {\n"
                     "  param %w \"embed.weight\" : f32[11, 4]\n  input %i \"ids\" : i64[2, 4]\n"
                     "  %x = aten.embedding.default(%w, %i, -1, false, false) : f32[2, 4, 4]\n",
                     node, "\n  %l = aten.mean.default(%y, none) : f32[]\n  return %l\n}\n"));
    return parsed.ok() ? RunCase(*parsed) : RunOutcome{CaseResult::kFailed, "no graph", ""};
  };
  EXPECT_EQ(run("%y = aten.exp.default(%x) : f32[2, 4, 4]").result, CaseResult::kEqual);
  EXPECT_EQ(run("%y = aten.embedding.default(%w, %i, -1, true, false) : f32[2, 4, 4]").result,
            CaseResult::kRefused);
  // Gathered for want of a rule, and then there is no such op.
  EXPECT_EQ(run("%y = aten.nothing.default(%x) : f32[2, 4, 4]").result, CaseResult::kFailed);
  // Dropout draws what no run of PyTorch draws.
  const RunOutcome dropped = run("%y = aten.dropout.default(%x, 0.5, true) : f32[2, 4, 4]");
  EXPECT_EQ(dropped.result, CaseResult::kFailed);
  EXPECT_THAT(dropped.message, testing::HasSubstr("draws random numbers"));
  // Half precision is not within the bound of fp32: a difference that only numbers show.
  EXPECT_EQ(run("%h = aten.to.dtype(%x, bf16, false, false, none) : bf16[2, 4, 4]\n"
                "%s = aten.cumsum.default(%h, 1, none) : bf16[2, 4, 4]\n"
                "%y = aten.exp.default(%s) : bf16[2, 4, 4]")
                    .result == CaseResult::kEqual,
            false);
}

}  // namespace
}  // namespace autosp
