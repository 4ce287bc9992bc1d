#include "compiler/config/job_yaml.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/config/config_keys.h"
#include "compiler/config/job_rules.h"
#include "compiler/config/yaml_tree.h"

namespace autosp {
namespace {

constexpr int64_t kVersion = 1;
const std::set<std::string>& HeaderKeys() {
  static const auto& keys = *new std::set<std::string>{"version", "kind"};
  return keys;
}

// `version` and `kind` say how to read the rest, so a mistake here ends the reading.
absl::Status CheckHeader(const YamlNode& root, absl::string_view file, absl::string_view kind) {
  YamlProblems problems(file);
  if (root.kind != YamlNode::Kind::kMap) {
    problems.Add(root, absl::StrCat("file: is ", DescribeYamlNode(root),
                                    "; expected a map that begins with version: ", kVersion));
    return problems.ToStatus();
  }
  const YamlNode* version = root.Find("version");
  if (version == nullptr) {
    problems.Add(root, absl::StrCat("version: is missing; add version: ", kVersion));
  } else if (version->text != absl::StrCat(kVersion) || version->is_quoted) {
    problems.Add(*version, absl::StrCat("version: is ", DescribeYamlNode(*version),
                                        "; this program reads version ", kVersion));
  }
  const YamlNode* found = root.Find("kind");
  if (found == nullptr) {
    problems.Add(root, absl::StrCat("kind: is missing; add kind: ", kind));
  } else if (found->text != kind) {
    problems.Add(*found, absl::StrCat("kind: is ", DescribeYamlNode(*found), "; expected ", kind,
                                      ": is this the right file?"));
  }
  return problems.ToStatus();
}

// Descends to `path`, making maps on the way, and puts `value` there.
absl::Status SetNode(YamlNode& root, const std::vector<std::string>& path, YamlNode value,
                     absl::string_view origin) {
  YamlNode* node = &root;
  for (const std::string& part : path) {
    if (node->kind == YamlNode::Kind::kNull) node->kind = YamlNode::Kind::kMap;
    if (node->kind != YamlNode::Kind::kMap) {
      return InvalidArgument(origin, ": ", part, " is under a value that is no map");
    }
    YamlNode* next = nullptr;
    for (YamlEntry& entry : node->entries) {
      if (entry.key == part) next = &entry.value;
    }
    if (next == nullptr) {
      YamlNode made;
      made.origin = std::string(origin);
      node->entries.push_back({part, {}, std::move(made)});
      next = &node->entries.back().value;
    }
    node = next;
  }
  *node = std::move(value);
  return absl::OkStatus();
}

absl::Status ApplyOverride(const std::string& text, YamlNode& root) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
  const std::vector<std::string> path = absl::StrSplit(parts.first, '.');
  const bool has_empty_part = std::find(path.begin(), path.end(), "") != path.end();
  if (text.find('=') == std::string::npos || has_empty_part ||
      path.size() > static_cast<size_t>(kMaxConfigDepth)) {
    return InvalidArgument("--set ", text,
                           ": is no path=value; write for example training.steps=20");
  }
  const std::string origin = absl::StrCat("--set ", parts.first);
  ASSIGN_OR_RETURN(YamlNode value, ParseYamlOverrideValue(parts.second, origin));
  return SetNode(root, path, std::move(value), origin);
}

absl::StatusOr<YamlNode> ReadTree(absl::string_view text, absl::string_view file,
                                  const std::vector<std::string>& overrides) {
  ASSIGN_OR_RETURN(YamlNode root, ParseYamlTree(text, file));
  for (const std::string& override_text : overrides) {
    RETURN_IF_ERROR(ApplyOverride(override_text, root));
  }
  return root;
}

// The node of `path`, or the deepest one above it: where to point for a rule between keys.
const YamlNode& NodeOf(const YamlNode& root, const std::string& path) {
  const YamlNode* node = &root;
  for (const absl::string_view part : absl::StrSplit(path, absl::ByAnyChar(".["))) {
    const YamlNode* next = node->Find(part);
    int64_t index = 0;
    if (next == nullptr && absl::EndsWith(part, "]") &&
        absl::SimpleAtoi(part.substr(0, part.size() - 1), &index) && index >= 0 &&
        static_cast<size_t>(index) < node->items.size()) {
      next = &node->items[index];
    }
    if (next == nullptr) break;
    node = next;
  }
  return *node;
}

template <typename Spec>
absl::StatusOr<Spec> ReadSpec(const YamlNode& root, absl::string_view file,
                              const KeyTable<Spec>& keys) {
  Spec spec;
  YamlProblems problems(file);
  keys.Read(root, "", problems, spec, HeaderKeys());
  RETURN_IF_ERROR(problems.ToStatus());
  for (const RuleViolation& violation : FindRuleViolations(spec)) {
    problems.Add(NodeOf(root, violation.path),
                 absl::StrCat(violation.path, ": ", violation.message));
  }
  RETURN_IF_ERROR(problems.ToStatus());
  return spec;
}

std::string Header(absl::string_view kind) {
  return absl::StrCat("version: ", kVersion, "\nkind: ", kind, "\n");
}

// "dir/llama.pt2" gives "llama".
std::string StemOf(absl::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash != absl::string_view::npos) path.remove_prefix(slash + 1);
  const size_t dot = path.rfind('.');
  return std::string(dot == absl::string_view::npos || dot == 0 ? path : path.substr(0, dot));
}

}  // namespace

absl::StatusOr<JobSpec> ParseJobYaml(absl::string_view text, absl::string_view file,
                                     const std::vector<std::string>& overrides) {
  ASSIGN_OR_RETURN(const YamlNode root, ReadTree(text, file, overrides));
  RETURN_IF_ERROR(CheckHeader(root, file, "Job"));
  ASSIGN_OR_RETURN(JobSpec spec, ReadSpec(root, file, JobKeys()));
  if (spec.name.empty()) spec.name = StemOf(spec.model.archives.front());
  return spec;
}

std::string LocateInJobYaml(absl::string_view message, absl::string_view text,
                            absl::string_view file, const std::vector<std::string>& overrides) {
  const absl::StatusOr<YamlNode> root = ReadTree(text, file, overrides);
  if (!root.ok()) return std::string(message);
  std::vector<std::string> lines;
  for (const absl::string_view line : absl::StrSplit(message, '\n')) {
    const absl::string_view key = line.substr(0, line.find(": "));
    const absl::string_view section = key.substr(0, key.find('.'));
    if (section.size() < key.size() && root->Find(section) != nullptr) {
      YamlProblems problems(file);
      problems.Add(NodeOf(*root, std::string(key)), line);
      lines.emplace_back(problems.ToStatus().message());
    } else {
      lines.emplace_back(line);
    }
  }
  return absl::StrJoin(lines, "\n");
}

std::string CanonicalJobYaml(const JobSpec& spec) {
  return absl::StrCat(Header("Job"), JobKeys().Write(spec, 0));
}

absl::StatusOr<ClusterSpec> ParseClusterYaml(absl::string_view text, absl::string_view file) {
  ASSIGN_OR_RETURN(const YamlNode root, ParseYamlTree(text, file));
  RETURN_IF_ERROR(CheckHeader(root, file, "Cluster"));
  return ReadSpec(root, file, ClusterKeys());
}

std::string CanonicalClusterYaml(const ClusterSpec& spec) {
  return absl::StrCat(Header("Cluster"), ClusterKeys().Write(spec, 0));
}

absl::Status CheckJobSpec(const JobSpec& spec) {
  std::vector<std::string> lines;
  for (const RuleViolation& violation : FindRuleViolations(spec)) {
    lines.push_back(absl::StrCat(violation.path, ": ", violation.message));
  }
  if (lines.empty()) return absl::OkStatus();
  return InvalidArgument(absl::StrJoin(lines, "\n"));
}

}  // namespace autosp
