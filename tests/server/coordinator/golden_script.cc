#include "tests/server/coordinator/golden_script.h"

#include <cstdint>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

// The words of a line; double quotes keep spaces together and are dropped.
std::vector<std::string> SplitWords(const std::string& line) {
  std::vector<std::string> words;
  std::string word;
  bool is_quoted = false;
  for (char c : line + " ") {
    if (c == '"') {
      is_quoted = !is_quoted;
    } else if (c == ' ' && !is_quoted) {
      if (!word.empty()) words.push_back(std::move(word));
      word.clear();
    } else {
      word += c;
    }
  }
  return words;
}

}  // namespace

std::string ScriptCommand::Get(const std::string& key, const std::string& otherwise) const {
  auto found = args.find(key);
  return found == args.end() ? otherwise : found->second;
}

int64_t ScriptCommand::GetInt(const std::string& key, int64_t otherwise) const {
  auto found = args.find(key);
  if (found == args.end()) return otherwise;
  int64_t value = 0;
  EXPECT_TRUE(absl::SimpleAtoi(found->second, &value)) << key << "=" << found->second;
  return value;
}

ScriptCommand ParseScriptCommand(const std::string& line) {
  ScriptCommand command;
  for (const std::string& word : SplitWords(line)) {
    const size_t equals = word.find('=');
    if (command.name.empty()) {
      command.name = word;
    } else if (equals == std::string::npos) {
      command.positional = word;
    } else {
      command.args[word.substr(0, equals)] = word.substr(equals + 1);
    }
  }
  return command;
}

void RunGoldenScript(const std::string& path, bool rewrite,
                     const std::function<std::string(const ScriptCommand&)>& run) {
  std::ifstream in(path);
  ASSERT_TRUE(in.good()) << path;
  std::string line, got, wanted, output;
  bool is_in_output = false;
  while (std::getline(in, line)) {
    wanted += line + "\n";
    if (is_in_output) {
      // A blank line ends the output; what it said is not needed.
      is_in_output = !line.empty();
      if (is_in_output) continue;
      got += "\n";
    } else if (line == "----") {
      got += "----\n" + (output.empty() ? "(nothing)\n" : output);
      output.clear();
      is_in_output = true;
    } else {
      got += line + "\n";
      if (!line.empty() && !absl::StartsWith(line, "#")) output += run(ParseScriptCommand(line));
    }
  }
  if (rewrite && got != wanted) {
    std::ofstream(path) << got;
    return;
  }
  EXPECT_EQ(got, wanted) << path << ": run with --rewrite, then read the diff";
}

}  // namespace autosp
