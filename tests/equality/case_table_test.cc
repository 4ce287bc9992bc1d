// Holds the rows of cases to the tests that they name, and docs/cases.md to the rows. With
// AUTOSP_REWRITE_GOLDENS in the environment the document is written anew.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "tests/equality/case_jobs.h"
#include "tests/equality/case_rows.h"

namespace autosp {
namespace {

std::string TestsPath(const std::string& relative) {
  return absl::StrCat(AUTOSP_SOURCE_DIR, "/tests/", relative);
}

std::string ReadText(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// The binary that runs a test file: its target in the CMakeLists.txt beside it. "" if there is
// none.
std::string BinaryOf(const NamedTest& test) {
  const std::filesystem::path file(TestsPath(test.file));
  const std::string cmake = ReadText(file.parent_path() / "CMakeLists.txt");
  const std::string stem = file.stem().string();
  const std::regex target(absl::StrCat(R"(NAME\s+(\w+)\s+SRCS[^)]*\b)", stem, R"(\.cc\b)"));
  std::smatch match;
  if (std::regex_search(cmake, match, target)) return match[1];
  // Or one of a list of tests that are named after their files: the name and what stands before it.
  const std::string item = stem.substr(0, stem.size() - std::string("_test").size());
  const std::regex listed(
      absl::StrCat(R"(foreach\(name IN ITEMS[^)]*\b)", item,
                   R"(\b[^)]*\)[^(]*autosp_test\(NAME (\w*)\$\{name\}_test\b)"));
  return std::regex_search(cmake, match, listed) ? absl::StrCat(match.str(1), stem) : "";
}

bool Exists(const NamedTest& test) {
  const std::regex definition(
      absl::StrCat(R"(TEST(_P|_F)?\()", test.suite, R"(,\s*)", test.name, R"(\))"));
  return std::regex_search(ReadText(TestsPath(test.file)), definition);
}

// An archive under tests/, or the folder that holds it.
std::string ArchiveOf(const std::string& refused) {
  const std::string path = TestsPath(refused);
  return path.ends_with(".pt2") ? path : path + "/model.pt2";
}

constexpr int64_t kBatch = 4;
constexpr int64_t kSeqLen = 16;
constexpr Mesh kTwoRanks = {.accum = 1, .dp = 1, .ring = 1, .ulysses = 2};
constexpr Mesh kOneRank = {};

JobSpec MakeJob(const ImportedModel& model, int64_t seq_len = kSeqLen) {
  JobSpec job;
  job.name = "case";
  job.training.seq_len = seq_len;
  job.training.global_batch_size = kBatch;
  job.training.steps = 1;
  FeedCaseInputs(model, &job);
  return job;
}

// What a user is told, without the folder of the archive. "" where it is not refused.
std::string RefusalOf(const std::string& refused) {
  const std::string path = ArchiveOf(refused);
  const absl::StatusOr<ImportedModel> model = ImportArchive(path);
  std::string message(model.status().message());
  if (const size_t at = message.find(path + ": "); at != std::string::npos) {
    return message.substr(at + path.size() + 2);
  }
  if (!model.ok()) return message;
  return std::string(
      CompileForMesh(*model, MakeJob(*model), kTwoRanks, nullptr).status().message());
}

// `path`: below tests/zoo.
std::vector<std::string> WarningsOf(const std::string& path) {
  std::vector<std::string> warnings;
  const auto model = ImportZoo(path);
  EXPECT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(CompileForMesh(*model, MakeJob(*model), kTwoRanks, &warnings).ok());
  return warnings;
}

absl::StatusOr<std::string> ProgramOf(const std::string& name, int64_t seq_len, const Mesh& mesh) {
  const auto model = ImportZoo(absl::StrCat("cases/", name));
  if (!model.ok()) return model.status();
  const auto lowered = CompileForMesh(*model, MakeJob(*model, seq_len), mesh, nullptr);
  if (!lowered.ok()) return lowered.status();
  return PrintProgram(lowered->program);
}

TEST(CaseTable, EveryRowHasWhatShowsIt) {
  for (int i = 0; i < kNumCaseRows; ++i) {
    const CaseRow& row = CaseRows()[i];
    EXPECT_EQ(row.number, i + 1) << "rows are listed once each";
    const bool is_shown = !row.cases.empty() || !row.tests.empty();
    switch (row.outcome) {
      case CaseOutcome::kEqual:
        EXPECT_TRUE(is_shown) << "row " << row.number;
        break;
      case CaseOutcome::kRefused:
        EXPECT_FALSE(row.refused.empty()) << "row " << row.number;
        break;
    }
  }
}

TEST(CaseTable, TestsAndCasesThatAreNamedExist) {
  const std::vector<std::string> folders = ZooFolders("cases");
  for (const CaseRow& row : CaseRows()) {
    for (const std::string& name : row.cases) {
      EXPECT_TRUE(std::ranges::count(folders, name)) << "row " << row.number << ": " << name;
    }
    for (const NamedTest& test : row.tests) {
      EXPECT_TRUE(Exists(test)) << "row " << row.number << ": " << test.suite << "." << test.name;
      EXPECT_NE(BinaryOf(test), "") << test.file;
    }
  }
}

TEST(CaseTable, EveryCaseIsInARow) {
  std::set<std::string> named;
  for (const CaseRow& row : CaseRows()) {
    named.insert(row.cases.begin(), row.cases.end());
    for (const auto* archives : {&row.refused, &row.warned}) {
      for (const std::string& path : *archives) named.insert(path.substr(path.rfind('/') + 1));
    }
  }
  for (const char* folder : {"cases", "refused", "warned"}) {
    for (const std::string& name : ZooFolders(folder)) EXPECT_TRUE(named.contains(name)) << name;
  }
}

TEST(CaseTable, WhatIsRefusedIsRefused) {
  for (const CaseRow& row : CaseRows()) {
    for (const std::string& refused : row.refused) {
      EXPECT_TRUE(std::filesystem::exists(ArchiveOf(refused))) << refused;
      EXPECT_NE(RefusalOf(refused), "") << refused;
    }
  }
  EXPECT_EQ(RefusalOf("zoo/cases/old_shift"), "") << "a refusal is told from none";
}

// What a user is told of a number that may be made of a size.
std::string WarningOfSize(const std::string& warned) {
  const std::vector<std::string> warnings = WarningsOf(warned.substr(warned.find('/') + 1));
  const auto found = std::ranges::find_if(warnings, [](const std::string& warning) {
    return warning.find("which the job changes") != std::string::npos;
  });
  return found == warnings.end() ? "" : *found;
}

TEST(CaseTable, NumbersMadeOfSizesAreWarnedOf) {
  for (const CaseRow& row : CaseRows()) {
    for (const std::string& warned : row.warned) EXPECT_NE(WarningOfSize(warned), "") << warned;
  }
  EXPECT_EQ(WarningOfSize("zoo/cases/static_shapes"), "") << "a warning is told from none";
}

TEST(CaseTable, OpsWithoutRulesAreNamed) {
  const std::string warnings = absl::StrJoin(WarningsOf("cases/ops_without_rules"), "\n");
  EXPECT_THAT(warnings, testing::HasSubstr("aten.renorm.default"));
  EXPECT_THAT(warnings,
              testing::HasSubstr("has no rule: it is gathered, computed in full and sliced"));
  EXPECT_THAT(absl::StrJoin(WarningsOf("cases/old_shift"), "\n"),
              testing::Not(testing::HasSubstr("has no rule")));
}

// Nothing is left behind by a job that was compiled before, of the same model or another.
TEST(CaseTable, JobsInOneProcessAreIndependent) {
  const std::vector<std::string> names = {"straddling_heads", "packed_window", "class_token"};
  std::map<std::string, std::string> first;
  for (const std::string& name : names) {
    const auto program = ProgramOf(name, kSeqLen, kTwoRanks);
    ASSERT_TRUE(program.ok()) << program.status();
    first[name] = *program;
  }
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    const auto other = ProgramOf(*name, kSeqLen + 3, kTwoRanks);
    ASSERT_TRUE(other.ok()) << other.status();
    EXPECT_NE(*other, first[*name]);
    EXPECT_EQ(*ProgramOf(*name, kSeqLen, kTwoRanks), first[*name]) << *name;
  }
}

// The largest tensor of most models: with a loss of S - 1 tokens it was put together on every rank.
TEST(CaseTable, LogitsStayWhereTheyAre) {
  for (const char* name : {"old_shift", "padded_shift", "sliced_probabilities", "sliced_inputs"}) {
    const auto program = ProgramOf(name, kSeqLen, kTwoRanks);
    ASSERT_TRUE(program.ok()) << program.status();
    EXPECT_THAT(*program, testing::ContainsRegex("seq@ulysses, 24"))
        << name << ": each rank has logits of its tokens";
    EXPECT_THAT(*program, testing::Not(testing::ContainsRegex("start [^\n]*, 24\\]")))
        << name << ": logits are exchanged";
  }
}

TEST(CaseTable, OneRankHasNoCollectives) {
  for (const std::string& name : ZooFolders("cases")) {
    const auto program = ProgramOf(name, kSeqLen, kOneRank);
    ASSERT_TRUE(program.ok()) << name << ": " << program.status();
    EXPECT_THAT(*program, testing::Not(testing::ContainsRegex("(^|\n) *[^\n]*= start "))) << name;
  }
  const auto two = ProgramOf("old_shift", kSeqLen, kTwoRanks);
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_THAT(*two, testing::ContainsRegex("(^|\n) *[^\n]*= start "));
}

std::string OutcomeOf(const CaseRow& row) {
  switch (row.outcome) {
    case CaseOutcome::kEqual:
      if (!row.warned.empty()) return "equal, warned of, or refused";
      return row.refused.empty() ? "equal" : "equal, or refused";
    case CaseOutcome::kRefused:
      return "refused";
  }
  return "";
}

std::string Commands(const CaseRow& row) {
  std::string text;
  if (!row.cases.empty()) {
    absl::StrAppend(&text, "    build/dev/tests/cases_test --gtest_filter='*/",
                    absl::StrJoin(row.cases, ":*/"), "'\n");
  }
  for (const NamedTest& test : row.tests) {
    absl::StrAppend(&text, "    build/dev/tests/", BinaryOf(test), " --gtest_filter='*", test.suite,
                    ".", test.name, "*'  # ", test.shows, "\n");
  }
  if (!row.refused.empty()) {
    absl::StrAppend(&text, "    build/dev/tests/case_table_test  # what is refused",
                    row.warned.empty() ? "" : ", and what is warned of", "\n");
  }
  return text;
}

std::string Section(const CaseRow& row) {
  std::string text =
      absl::StrCat("\n### ", row.number, ". ", row.what, ": ", OutcomeOf(row), "\n\n");
  if (!row.open.empty()) absl::StrAppend(&text, row.open, "\n\n");
  absl::StrAppend(&text, Commands(row));
  if (!row.refused.empty()) absl::StrAppend(&text, "\n");
  for (const std::string& refused : row.refused) {
    absl::StrAppend(&text, "- `", refused.substr(refused.rfind('/') + 1), "`: ", RefusalOf(refused),
                    "\n");
  }
  if (!row.warned.empty()) absl::StrAppend(&text, "\nWarned of:\n\n");
  for (const std::string& warned : row.warned) {
    absl::StrAppend(&text, "- `", warned.substr(warned.rfind('/') + 1),
                    "`: ", WarningOfSize(warned), "\n");
  }
  return text;
}

// The batch, length and mesh of every comparison of cases_test.cc, read from its text.
std::string Meshes() {
  const std::string source = ReadText(TestsPath("equality/cases_test.cc"));
  std::string text = "| test | batch x tokens on accum x dp x ulysses (x ring) |\n|---|---|\n";
  const std::regex call(R"(Compare\(\{(\d+), (\d+)\}, MakeMesh\(([\d, ]+)\)\), ""\))");
  std::vector<std::string> tests = absl::StrSplit(source, "TEST_P(CasesTest, ");
  tests.erase(tests.begin());
  for (const std::string& test : tests) {
    std::vector<std::string> runs;
    for (std::sregex_iterator run(test.begin(), test.end(), call), end; run != end; ++run) {
      const std::string mesh = absl::StrJoin(absl::StrSplit((*run)[3].str(), ", "), " x ");
      runs.push_back(absl::StrCat((*run)[1].str(), " x ", (*run)[2].str(), " on ", mesh));
    }
    absl::StrAppend(&text, "| `", test.substr(0, test.find(')')), "` | ", absl::StrJoin(runs, "; "),
                    " |\n");
  }
  return text;
}

std::string Document() {
  std::string text =
      "# Cases\n\n"
      "Ways in which sequence parallelism goes wrong, and what happens here. Made from\n"
      "`tests/equality/case_rows.cc`; a test holds it to the tests that it names.\n\n"
      "*Equal*: on every mesh below the loss is PyTorch's on one device to 1e-5, and every "
      "gradient\n"
      "to 1e-5 of its tensor's largest entry. *Refused*: before anything runs, with the message "
      "that\n"
      "is quoted. *Warned of*: planned with the warning that is quoted, and refused with "
      "`strict`.\n\n"
      "| row | case | outcome | cases | other tests |\n|---|---|---|---|---|\n";
  for (const CaseRow& row : CaseRows()) {
    std::vector<std::string> tests;
    for (const NamedTest& test : row.tests) {
      tests.push_back(absl::StrCat("`", test.suite, ".", test.name, "`"));
    }
    absl::StrAppend(&text, "| ", row.number, " | ", row.what, " | ", OutcomeOf(row), " | ",
                    absl::StrJoin(row.cases, ", "), " | ", absl::StrJoin(tests, ", "), " |\n");
  }
  absl::StrAppend(&text, "\n## Meshes\n\nEvery case of `tests/zoo/cases` runs on all of these.\n\n",
                  Meshes(),
                  "\nWith accumulation these are refused, since they need the whole batch: ",
                  absl::StrJoin(CasesThatNeedTheWholeBatch(), ", "),
                  ".\n\n## Rows\n\nEach with the commands that run it, after `./run build`.\n");
  for (const CaseRow& row : CaseRows()) absl::StrAppend(&text, Section(row));
  return text;
}

TEST(CaseTable, DocumentSaysWhatTheRowsSay) {
  const std::string path = std::string(AUTOSP_SOURCE_DIR) + "/docs/cases.md";
  if (std::getenv("AUTOSP_REWRITE_GOLDENS") != nullptr) {
    std::ofstream(path) << Document();
    return;
  }
  EXPECT_EQ(ReadText(path), Document()) << "run with AUTOSP_REWRITE_GOLDENS=1";
}

}  // namespace
}  // namespace autosp
