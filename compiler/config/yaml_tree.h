// YAML text as a tree in which every node knows its place in the file.
//
// Only the plain part of YAML is let through: maps with unique string keys, sequences and scalars
// in one document. Anchors, aliases, tags and merge keys are refused, so a small file cannot grow
// into a large tree, and depth and size have limits.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autosp {

struct YamlLocation {
  int line = 0;  // from 1; 0: not from the file (see YamlNode::origin)
  int column = 0;
};

struct YamlEntry;

struct YamlNode {
  enum class Kind { kNull, kScalar, kSequence, kMap };

  Kind kind = Kind::kNull;
  YamlLocation location;
  std::string origin;  // what an override was called, "--set a.b"; empty: from the file
  std::string text;    // of a scalar
  bool is_quoted = false;
  std::vector<YamlNode> items;     // of a sequence
  std::vector<YamlEntry> entries;  // of a map, in the order of the file

  const YamlNode* Find(absl::string_view key) const;
};

struct YamlEntry {
  std::string key;
  YamlLocation location;  // of the key
  YamlNode value;
};

// Collects what is wrong, so that one run names every mistake of a file.
class YamlProblems {
 public:
  explicit YamlProblems(absl::string_view file) : file_(file) {}

  // `message` without place: "training.steps: 0 is below 1; ...".
  void Add(const YamlNode& node, absl::string_view message);
  void Add(YamlLocation location, absl::string_view message);

  // For the same file, with nothing wrong yet.
  YamlProblems WithoutLines() const { return YamlProblems(file_); }

  bool empty() const { return lines_.empty(); }
  absl::Status ToStatus() const;

 private:
  static constexpr int kMaxProblems = 20;

  void AddLine(std::string line);

  std::string file_;
  std::vector<std::string> lines_;
  int num_dropped_ = 0;
};

// `file` names the text in messages.
absl::StatusOr<YamlNode> ParseYamlTree(absl::string_view text, absl::string_view file);

// The value of "path=value": text that opens a list, a map or a quoted string is read as YAML, any
// other is a plain scalar as it stands (so a glob like *.py needs no quotes).
absl::StatusOr<YamlNode> ParseYamlOverrideValue(absl::string_view text, absl::string_view origin);

// How a value is shown in a message: 'text' for scalars, "a list", "a map", "nothing".
std::string DescribeYamlNode(const YamlNode& node);

// `text` as a YAML scalar: plain where that reads back as the same string, else in double quotes.
std::string QuoteYaml(absl::string_view text);

}  // namespace autosp
