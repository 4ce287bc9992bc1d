#include "compiler/config/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "compiler/config/job_yaml.h"

namespace autosp {
namespace {

constexpr size_t kMaxShownChars = 60;
constexpr char kAliasMessage[] =
    "alias (*name): not allowed here; text that begins with * needs quotes";
constexpr size_t kMaxMapKeys = 1000;  // Keys are looked up one by one.

YamlLocation LocationOf(const YAML::Mark& mark) { return {mark.line + 1, mark.column + 1}; }

// Builds the tree from parse events. After the first problem the rest of the text is skipped:
// yaml-cpp cannot be stopped, but it does no more than walk over text that has a size limit.
class TreeBuilder final : public YAML::EventHandler {
 public:
  explicit TreeBuilder(absl::string_view file) : problems_(file) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnAnchor(const YAML::Mark& mark, const std::string& name) override {
    Refuse(mark, absl::StrCat("anchor &", Shown(name), ": not allowed here; write the value out"));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { Refuse(mark, kAliasMessage); }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    AddLeaf(mark, YamlNode::Kind::kNull, "", /*is_quoted=*/false);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    CheckTag(mark, tag);
    AddLeaf(mark, YamlNode::Kind::kScalar, value, tag == "!");
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    CheckTag(mark, tag);
    Open(mark, YamlNode::Kind::kSequence);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    CheckTag(mark, tag);
    Open(mark, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { Close(); }

  void Refuse(const YAML::Mark& mark, absl::string_view message) {
    if (problems_.empty()) problems_.Add(LocationOf(mark), message);
  }

  // What the parser itself has found: it replaces other problems, which may come from its guesses
  // about broken text.
  absl::Status SyntaxError(const YAML::Exception& error) const {
    YamlProblems problems = problems_.WithoutLines();
    const bool is_alias = absl::StartsWith(error.msg, YAML::ErrorMsg::UNKNOWN_ANCHOR);
    problems.Add(LocationOf(error.mark),
                 is_alias ? std::string(kAliasMessage) : absl::StrCat("not YAML: ", error.msg));
    return problems.ToStatus();
  }

  absl::StatusOr<YamlNode> Take() && {
    if (!problems_.empty()) return problems_.ToStatus();
    return std::move(root_);
  }

 private:
  // A map or sequence that is being read; `key` waits for its value.
  struct Frame {
    YamlNode node;
    bool has_key = false;
    std::string key;
    YamlLocation key_location;
  };

  static std::string Shown(absl::string_view text) {
    if (text.size() <= kMaxShownChars) return std::string(text);
    return absl::StrCat(text.substr(0, kMaxShownChars), "...");
  }

  void CheckTag(const YAML::Mark& mark, const std::string& tag) {
    if (tag.empty() || tag == "!" || tag == "?") return;
    Refuse(mark, absl::StrCat("tag ", Shown(tag), ": not allowed here; remove it"));
  }

  void AddLeaf(const YAML::Mark& mark, YamlNode::Kind kind, const std::string& text,
               bool is_quoted) {
    YamlNode node;
    node.kind = kind;
    node.location = LocationOf(mark);
    node.text = text;
    node.is_quoted = is_quoted;
    Place(std::move(node));
  }

  void Open(const YAML::Mark& mark, YamlNode::Kind kind) {
    if (!problems_.empty()) return;
    if (frames_.size() >= static_cast<size_t>(kMaxConfigDepth)) {
      Refuse(mark, absl::StrCat("nesting: deeper than ", kMaxConfigDepth,
                                " levels, which no key needs; flatten it"));
      return;
    }
    if (!frames_.empty() && ExpectsKey(frames_.back())) {
      Refuse(mark, "key: a list or a map cannot be a key; use a name");
      return;
    }
    Frame frame;
    frame.node.kind = kind;
    frame.node.location = LocationOf(mark);
    frames_.push_back(std::move(frame));
  }

  void Close() {
    if (!problems_.empty()) return;
    YamlNode node = std::move(frames_.back().node);
    frames_.pop_back();
    Place(std::move(node));
  }

  static bool ExpectsKey(const Frame& frame) {
    return frame.node.kind == YamlNode::Kind::kMap && !frame.has_key;
  }

  void Place(YamlNode node) {
    if (!problems_.empty()) return;
    if (frames_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = frames_.back();
    if (frame.node.kind == YamlNode::Kind::kSequence) {
      frame.node.items.push_back(std::move(node));
    } else if (!frame.has_key) {
      PlaceKey(frame, std::move(node));
    } else {
      // The parser places a missing value where the next one begins.
      if (node.kind == YamlNode::Kind::kNull) node.location = frame.key_location;
      frame.node.entries.push_back({std::move(frame.key), frame.key_location, std::move(node)});
      frame.has_key = false;
    }
  }

  void PlaceKey(Frame& frame, YamlNode node) {
    if (frame.node.entries.size() >= kMaxMapKeys) {
      problems_.Add(node.location,
                    absl::StrCat("map: more than ", kMaxMapKeys, " keys, which no job needs"));
      return;
    }
    if (frame.node.Find(node.text) != nullptr) {
      problems_.Add(node.location, absl::StrCat("key ", Shown(node.text),
                                                ": appears twice in one map; keep one of them"));
      return;
    }
    frame.has_key = true;
    frame.key = std::move(node.text);
    frame.key_location = node.location;
  }

  YamlProblems problems_;
  std::vector<Frame> frames_;
  YamlNode root_;
};

// yaml-cpp takes some control characters for the end of the file, which would cut it in silence.
absl::Status CheckCharacters(absl::string_view text, absl::string_view file) {
  YamlLocation location{1, 1};
  for (const char c : text) {
    if (c == '\n') {
      location = {location.line + 1, 1};
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\t' && c != '\r') || byte == 0x7f) {
      YamlProblems problems(file);
      problems.Add(location, absl::StrFormat("character 0x%02x: control characters are not "
                                             "allowed; is this a text file?",
                                             byte));
      return problems.ToStatus();
    }
    ++location.column;
  }
  return absl::OkStatus();
}

absl::StatusOr<YamlNode> BuildTree(absl::string_view text, absl::string_view file) {
  TreeBuilder builder(file);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) {
      return absl::InvalidArgumentError(absl::StrCat(file, ": the file is empty"));
    }
    TreeBuilder rest(file);
    if (parser.HandleNextDocument(rest)) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": more than one document (---); keep one per file"));
    }
  } catch (const YAML::Exception& error) {
    return builder.SyntaxError(error);
  }
  return std::move(builder).Take();
}

}  // namespace

const YamlNode* YamlNode::Find(absl::string_view key) const {
  for (const YamlEntry& entry : entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

void YamlProblems::Add(const YamlNode& node, absl::string_view message) {
  if (node.origin.empty()) return Add(node.location, message);
  AddLine(absl::StrCat(node.origin, ": ", message));
}

void YamlProblems::Add(YamlLocation location, absl::string_view message) {
  AddLine(absl::StrCat(file_, ":", location.line, ":", location.column, ": ", message));
}

void YamlProblems::AddLine(std::string line) {
  if (lines_.size() < kMaxProblems) {
    lines_.push_back(std::move(line));
  } else {
    ++num_dropped_;
  }
}

absl::Status YamlProblems::ToStatus() const {
  if (lines_.empty()) return absl::OkStatus();
  std::string message = absl::StrJoin(lines_, "\n");
  if (num_dropped_ > 0) absl::StrAppend(&message, "\nand ", num_dropped_, " more");
  return absl::InvalidArgumentError(message);
}

absl::StatusOr<YamlNode> ParseYamlTree(absl::string_view text, absl::string_view file) {
  if (text.size() > static_cast<size_t>(kMaxConfigBytes)) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", text.size(), " bytes; at most ",
                                                   kMaxConfigBytes,
                                                   " are read; is this the "
                                                   "right file?"));
  }
  RETURN_IF_ERROR(CheckCharacters(text, file));
  return BuildTree(text, file);
}

namespace {

void SetOrigin(absl::string_view origin, YamlNode& node) {
  node.origin = std::string(origin);
  for (YamlNode& item : node.items) SetOrigin(origin, item);
  for (YamlEntry& entry : node.entries) SetOrigin(origin, entry.value);
}

}  // namespace

absl::StatusOr<YamlNode> ParseYamlOverrideValue(absl::string_view text, absl::string_view origin) {
  YamlNode node;
  if (!text.empty() && absl::StrContains("[{\"'", text.substr(0, 1))) {
    ASSIGN_OR_RETURN(node, ParseYamlTree(text, origin));
  } else if (!text.empty()) {
    RETURN_IF_ERROR(CheckCharacters(text, origin));
    node.kind = YamlNode::Kind::kScalar;
    node.text = std::string(text);
  }
  SetOrigin(origin, node);
  return node;
}

std::string DescribeYamlNode(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kSequence:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a map";
    case YamlNode::Kind::kScalar:
      break;
  }
  if (node.text.size() <= kMaxShownChars) return absl::StrCat("'", node.text, "'");
  return absl::StrCat("'", node.text.substr(0, kMaxShownChars), "...'");
}

std::string QuoteYaml(absl::string_view text) {
  // Plain scalars are kept to letters, digits and a few signs that mean nothing to YAML.
  bool is_plain = !text.empty() && (absl::ascii_isalnum(text[0]) || text[0] == '/');
  for (const char c : text) {
    if (!absl::ascii_isalnum(c) && !absl::StrContains("/._-+", std::string(1, c))) is_plain = false;
  }
  if (is_plain && !absl::EqualsIgnoreCase(text, "null")) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted.push_back('\\');
    quoted.push_back(c);
  }
  quoted.push_back('"');
  return quoted;
}

}  // namespace autosp
