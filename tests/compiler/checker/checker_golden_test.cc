// Small programs that the checker accepts, and programs that it refuses with their messages.
// `--rewrite` writes what it says now.
//
//   # Why this case is here.
//   check                        or  compare, with two programs: the second is the one-device
//   program program "p" { ... }
//   ----
//   accepted                     or  the message
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "compiler/checker/check_program.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

bool rewrite = false;
constexpr int64_t kMaxGoldenBytes = 1 << 20;

struct Case {
  std::string head;  // comments and blank lines
  std::string command;
  std::vector<std::string> programs;
  std::string expected;  // below the separator
};

std::vector<Case> ReadCases(const std::string& text) {
  std::vector<Case> cases;
  std::string head;
  std::string* part = nullptr;
  for (absl::string_view line : absl::StrSplit(absl::StripSuffix(text, "\n"), '\n')) {
    if (line == "check" || line == "compare") {
      cases.push_back({head, std::string(line), {}, {}});
      head.clear();
      part = nullptr;
      continue;
    }
    if (line == "----" && !cases.empty()) {
      part = &cases.back().expected;
      continue;
    }
    if (line.empty() || absl::StartsWith(line, "# ")) part = nullptr;
    const bool begins = absl::StartsWith(line, "program ") && !cases.empty();
    if (begins) part = &cases.back().programs.emplace_back();
    absl::StrAppend(part == nullptr ? &head : part, line, "\n");
  }
  return cases;
}

absl::Status RunCase(const Case& test) {
  std::vector<Program> programs;
  for (const std::string& text : test.programs) {
    ASSIGN_OR_RETURN(Program program, ParseProgram(text), "bad case");
    programs.push_back(std::move(program));
  }
  if (test.command == "check") return CheckProgram(programs.at(0));
  return CheckEquivalent(programs.at(0), programs.at(1)).status();
}

class CheckerGolden : public testing::TestWithParam<std::string> {};

TEST_P(CheckerGolden, SaysWhatTheFileSays) {
  const std::string path =
      absl::StrCat(AUTOSP_SOURCE_DIR, "/tests/golden/checker/", GetParam(), ".txt");
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxGoldenBytes);
  ASSERT_TRUE(text.ok()) << text.status();
  std::string written;
  for (const Case& test : ReadCases(*text)) {
    const absl::Status status = RunCase(test);
    const std::string said = status.ok() ? "accepted\n" : absl::StrCat(status.message(), "\n");
    absl::StrAppend(&written, test.head, test.command, "\n");
    for (const std::string& program : test.programs) written += program;
    absl::StrAppend(&written, "----\n", said);
    if (rewrite) continue;
    EXPECT_EQ(said, test.expected) << test.head << test.programs.at(0);
  }
  if (rewrite) std::ofstream(path) << written;
}

std::vector<std::string> GoldenNames() {
  std::set<std::string> names;
  const std::string folder = absl::StrCat(AUTOSP_SOURCE_DIR, "/tests/golden/checker");
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.insert(entry.path().stem().string());
  }
  return {names.begin(), names.end()};
}

INSTANTIATE_TEST_SUITE_P(Files, CheckerGolden, testing::ValuesIn(GoldenNames()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) autosp::rewrite |= std::strcmp(argv[i], "--rewrite") == 0;
  return RUN_ALL_TESTS();
}
