// Graphs before and after each pass, as text. `--rewrite` writes what the passes do now.
//
//   # Why this case is here.
//   run fold-repeated-heads batch=2 seq_len=8 sp=4
//   graph "g" { ... }
//   ----
//   graph "g" { ... }        or  unchanged        or  error: the message
//   warning: the message     where the pass warns
//
// Inputs are [batch, sequence, other...]; one whose name starts with "other" has neither. With
// pad_token=9, ignore_index=9 or last_position=9 the job puts that number into input_ids, labels or
// position_ids.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "compiler/passes/pass.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

bool rewrite = false;
constexpr int64_t kMaxGoldenBytes = 1 << 20;
constexpr absl::string_view kSeparator = "----\n";

struct Case {
  std::string head;      // comments and blank lines
  std::string command;   // "run fold-repeated-heads sp=4"
  std::string input;     // text of a graph
  std::string expected;  // below the separator
};

struct FedWord {
  const char* input;
  FedNumber number;
};

const std::map<std::string, FedWord>& FedWords() {
  using enum FedNumber::Kind;
  static const auto& words = *new std::map<std::string, FedWord>{
      {"pad_token", {"input_ids", {kToken, "data.pad_token"}}},
      {"ignore_index", {"labels", {kIgnoredLabel, "data.ignore_index"}}},
      {"last_position", {"position_ids", {kLastPosition, "training.seq_len"}}}};
  return words;
}

std::string GoldenPath(const std::string& pass) {
  std::string stem = pass;
  std::ranges::replace(stem, '-', '_');
  return absl::StrCat(AUTOSP_SOURCE_DIR, "/tests/golden/passes/", stem, ".ir");
}

std::string ReadGolden(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kMaxGoldenBytes);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.ok() ? *std::move(text) : "";
}

InputRoles RolesOf(const Graph& graph) {
  InputRoles roles;
  for (const GraphInput& input : graph.inputs) {
    if (input.kind != InputKind::kUser) continue;
    std::vector<DimRole> dims(graph.type(input.value).sizes.size(), DimRole::kOther);
    const bool is_other = absl::StartsWith(input.name, "other");
    if (!is_other && !dims.empty()) dims[0] = DimRole::kBatch;
    if (!is_other && dims.size() > 1) dims[1] = DimRole::kSequence;
    roles[input.name] = dims;
  }
  return roles;
}

absl::StatusOr<PassContext> ContextOf(const std::vector<std::string>& words, const Graph& graph) {
  PassContext context;
  context.roles = RolesOf(graph);
  for (size_t i = 2; i < words.size(); ++i) {
    const std::vector<std::string> pair = absl::StrSplit(words[i], '=');
    int64_t value = 0;
    if (words[i] == "params=bf16" || words[i] == "params=fp32") {
      context.params = pair[1] == "bf16" ? ParamPrecision::kBf16 : ParamPrecision::kFp32;
      continue;
    }
    if (pair.size() != 2 || !absl::SimpleAtoi(pair[1], &value)) {
      return absl::InvalidArgumentError(absl::StrCat("not key=number: ", words[i]));
    }
    if (pair[0] == "batch") {
      context.batch_size = value;
    } else if (pair[0] == "seq_len") {
      context.seq_len = value;
    } else if (pair[0] == "sp") {
      context.head_shards = value;
    } else if (const auto word = FedWords().find(pair[0]); word != FedWords().end()) {
      const auto& [input, number] = word->second;
      context.fed_numbers[input].push_back({number.kind, number.key, value});
    } else {
      return absl::InvalidArgumentError(absl::StrCat("unknown key ", pair[0]));
    }
  }
  return context;
}

// What the pass makes of the case. A test error where the case itself is wrong, or where a second
// run changes the graph again.
std::string RunCase(const Case& test, const std::string& pass_name) {
  const std::vector<std::string> words = absl::StrSplit(test.command, ' ', absl::SkipEmpty());
  if (words.size() < 2 || words[1] != pass_name) return "bad case: another pass is named\n";
  absl::StatusOr<Graph> graph = ParseGraph(test.input);
  if (!graph.ok()) return absl::StrCat("bad case: ", graph.status().message(), "\n");
  const absl::Status valid = VerifyGraph(*graph);
  if (!valid.ok()) return absl::StrCat("bad case: ", valid.message(), "\n");
  absl::StatusOr<PassContext> context = ContextOf(words, *graph);
  if (!context.ok()) return absl::StrCat("bad case: ", context.status().message(), "\n");
  const auto pass = std::ranges::find(GraphPasses(), pass_name, &Pass::name);
  if (pass == GraphPasses().end()) return "bad case: no such pass\n";
  std::vector<std::string> warnings;
  context->warnings = &warnings;
  const std::string before = PrintGraph(*graph);
  const absl::StatusOr<bool> changed = pass->run(*graph, *context);
  if (!changed.ok()) return absl::StrCat("error: ", changed.status().message(), "\n");
  const absl::Status still_valid = VerifyGraph(*graph);
  if (!still_valid.ok()) return absl::StrCat("broken graph: ", still_valid.message(), "\n");
  const std::string after = PrintGraph(*graph);
  EXPECT_EQ(*changed, before != after) << test.command << ": says something else than it did";
  std::string warned;
  for (const std::string& each : warnings) absl::StrAppend(&warned, "warning: ", each, "\n");
  warnings.clear();
  const absl::StatusOr<bool> again = pass->run(*graph, *context);
  EXPECT_TRUE(again.ok() && !*again && PrintGraph(*graph) == after)
      << test.command << ": a second run is not the first\n"
      << PrintGraph(*graph);
  EXPECT_TRUE(warnings.empty()) << test.command << ": a second run warns again";
  return absl::StrCat(*changed ? after : "unchanged\n", warned);
}

std::vector<Case> ReadCases(const std::string& text) {
  std::vector<Case> cases;
  std::string* part = nullptr;
  std::string head;
  for (absl::string_view line : absl::StrSplit(absl::StripSuffix(text, "\n"), '\n')) {
    const std::string whole = absl::StrCat(line, "\n");
    if (absl::StartsWith(line, "run ")) {
      cases.push_back(
          {.head = std::move(head), .command = std::string(line), .input = {}, .expected = {}});
      head.clear();
      part = &cases.back().input;
    } else if (whole == kSeparator && !cases.empty()) {
      part = &cases.back().expected;
    } else if (part == nullptr || line.empty() || absl::StartsWith(line, "# ")) {
      part = nullptr;
      head += whole;
    } else {
      *part += whole;
    }
  }
  return cases;
}

std::vector<std::string> PassNames() {
  std::vector<std::string> names;
  for (const Pass& pass : GraphPasses()) names.emplace_back(pass.name);
  return names;
}

class PassGolden : public testing::TestWithParam<std::string> {};

TEST_P(PassGolden, IsUnchanged) {
  const std::string path = GoldenPath(GetParam());
  ASSERT_TRUE(FileExists(path)) << path << " is missing";
  const std::vector<Case> cases = ReadCases(ReadGolden(path));
  ASSERT_FALSE(cases.empty());
  std::string text;
  for (const Case& test : cases) {
    const std::string actual = RunCase(test, GetParam());
    if (!rewrite) {
      EXPECT_EQ(actual, test.expected) << test.head << test.command;
    }
    absl::StrAppend(&text, test.head, test.command, "\n", test.input, std::string(kSeparator),
                    actual);
  }
  if (rewrite) std::ofstream(path) << text;
}

// The cases hold both: graphs that the pass changes, and graphs that it must leave alone.
TEST_P(PassGolden, HasCasesThatItLeavesAlone) {
  int64_t num_changed = 0;
  int64_t num_left = 0;
  for (const Case& test : ReadCases(ReadGolden(GoldenPath(GetParam())))) {
    ++(test.expected == "unchanged\n" ? num_left : num_changed);
  }
  EXPECT_GT(num_changed, 0);
  EXPECT_GT(num_left, 0);
}

INSTANTIATE_TEST_SUITE_P(Passes, PassGolden, testing::ValuesIn(PassNames()),
                         [](const testing::TestParamInfo<std::string>& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

// Every golden belongs to a pass.
TEST(PassGoldens, HaveAPassEach) {
  const std::vector<std::string> names = PassNames();
  const std::string folder = absl::StrCat(AUTOSP_SOURCE_DIR, "/tests/golden/passes");
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const bool known = std::ranges::any_of(
        names, [&](const std::string& name) { return GoldenPath(name) == entry.path().string(); });
    EXPECT_TRUE(known) << entry.path();
  }
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  autosp::rewrite = std::getenv("AUTOSP_REWRITE_GOLDENS") != nullptr;
  for (int i = 1; i < argc; ++i) autosp::rewrite |= std::strcmp(argv[i], "--rewrite") == 0;
  return RUN_ALL_TESTS();
}
