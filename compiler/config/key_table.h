// The keys of a file as a table: one row per key with its path, type, default and meaning. The
// parser, the canonical text and the reference in docs/ are all driven by the same rows, so they
// cannot disagree.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "common/edit_distance.h"
#include "compiler/config/yaml_tree.h"

namespace autosp {

// The way from a spec to one of its values: At(&JobSpec::training, &TrainingSpec::steps).
template <typename... Members>
class MemberPath {
 public:
  explicit MemberPath(Members... members) : members_(members...) {}

  template <typename Spec>
  auto& operator()(Spec& spec) const {
    return std::apply(
        [&spec](auto... member) -> auto& { return (spec.*....*member); }, members_);
  }

 private:
  std::tuple<Members...> members_;
};

template <typename... Members>
MemberPath<Members...> At(Members... members) {
  return MemberPath<Members...>(members...);
}

enum class Presence { kOptional, kRequired };

// What the reference says about a key.
struct KeyInfo {
  std::string path;
  std::string type;
  std::string default_text;  // "required", or YAML; empty: none
  std::string doc;
};

// When a key has a meaning at all: written elsewhere, it would be read and then ignored, which is
// an error. `when` is the words for it: "with training.optimizer.name adamw".
template <typename Spec>
struct KeyCondition {
  std::function<bool(const Spec&)> holds;
  std::string when;
};

template <typename Spec>
struct KeyRow {
  std::string path;
  std::string type;
  Presence presence = Presence::kOptional;
  std::string doc;
  KeyCondition<Spec> condition;  // without `holds`: always
  std::function<void(const YamlNode&, const std::string& path, YamlProblems&, Spec&)> read;
  std::function<std::string(const Spec&, int indent)> write;
  std::vector<KeyInfo> nested;  // keys of the maps inside this value
};

template <typename Spec>
class KeyTable {
 public:
  // `codec` is one of value_codec.h.
  template <typename Member, typename Codec>
  KeyTable& Add(std::string path, Member member, Codec codec, Presence presence, std::string doc,
                KeyCondition<Spec> condition = {}) {
    KeyRow<Spec> row;
    row.path = std::move(path);
    row.type = codec.Type();
    row.presence = presence;
    row.doc = std::move(doc);
    row.condition = std::move(condition);
    row.read = [member, codec](const YamlNode& node, const std::string& name,
                               YamlProblems& problems,
                               Spec& spec) { codec.Read(node, name, problems, member(spec)); };
    row.write = [member, codec](const Spec& spec, int indent) {
      return codec.Write(member(spec), indent);
    };
    if constexpr (requires { codec.Nested(); }) row.nested = codec.Nested();
    rows_.push_back(std::move(row));
    return *this;
  }

  // Reads a map into `spec`. `prefix` stands before the paths in messages ("data.inputs.labels");
  // `ignored` are keys of the map that somebody else reads.
  void Read(const YamlNode& map, const std::string& prefix, YamlProblems& problems, Spec& spec,
            const std::set<std::string>& ignored = {}) const {
    std::vector<std::pair<const KeyRow<Spec>*, const YamlNode*>> seen;
    ReadSection(map, prefix, "", ignored, problems, spec, seen);
    CheckRequired(map, prefix, problems, seen);
    for (const auto& [row, node] : seen) {
      if (!row->condition.holds || row->condition.holds(spec)) continue;
      problems.Add(*node, absl::StrCat(Join(prefix, row->path), ": has no effect here, only ",
                                       row->condition.when, "; remove it"));
    }
  }

  // The spec as block YAML, each line indented by `indent` spaces, in the order of the rows.
  std::string Write(const Spec& spec, int indent) const {
    std::string text;
    std::vector<std::string> open;  // sections that the last line is in
    for (const KeyRow<Spec>& row : rows_) {
      if (row.condition.holds && !row.condition.holds(spec)) continue;
      std::vector<std::string> parts = absl::StrSplit(row.path, '.');
      const std::string leaf = parts.back();
      parts.pop_back();
      const int depth = indent + 2 * static_cast<int>(parts.size());
      const std::string value = row.write(spec, depth + 2);
      if (value.empty()) continue;
      for (size_t i = 0; i < parts.size(); ++i) {
        if (i < open.size() && open[i] == parts[i]) continue;
        open.resize(i);
        open.push_back(parts[i]);
        absl::StrAppend(&text, std::string(indent + 2 * i, ' '), parts[i], ":\n");
      }
      open.resize(parts.size());
      absl::StrAppend(&text, std::string(depth, ' '), leaf, value[0] == '\n' ? ":" : ": ", value,
                      "\n");
    }
    return text;
  }

  // One entry per key, those of nested maps after their parent. Defaults are those of Spec{}.
  std::vector<KeyInfo> Describe() const {
    std::vector<KeyInfo> infos;
    const Spec defaults{};
    for (const KeyRow<Spec>& row : rows_) {
      KeyInfo info{row.path, row.type, "required", row.doc};
      if (row.presence == Presence::kOptional) info.default_text = row.write(defaults, 0);
      if (row.condition.holds) absl::StrAppend(&info.doc, " Only ", row.condition.when, ".");
      infos.push_back(std::move(info));
      infos.insert(infos.end(), row.nested.begin(), row.nested.end());
    }
    return infos;
  }

  const std::vector<KeyRow<Spec>>& rows() const { return rows_; }

 private:
  using Seen = std::vector<std::pair<const KeyRow<Spec>*, const YamlNode*>>;

  static std::string Join(absl::string_view prefix, absl::string_view key) {
    return prefix.empty() ? std::string(key) : absl::StrCat(prefix, ".", key);
  }

  bool IsSection(const std::string& path) const {
    for (const KeyRow<Spec>& row : rows_) {
      if (row.path.starts_with(path + ".")) return true;
    }
    return false;
  }

  const KeyRow<Spec>* FindRow(const std::string& path) const {
    for (const KeyRow<Spec>& row : rows_) {
      if (row.path == path) return &row;
    }
    return nullptr;
  }

  void ReadSection(const YamlNode& map, const std::string& prefix, const std::string& section,
                   const std::set<std::string>& ignored, YamlProblems& problems, Spec& spec,
                   Seen& seen) const {
    if (map.kind == YamlNode::Kind::kNull) return;  // "training:" and nothing under it
    if (map.kind != YamlNode::Kind::kMap) {
      return problems.Add(map, absl::StrCat(section.empty() ? prefix : Join(prefix, section),
                                            ": is ", DescribeYamlNode(map), "; expected a map"));
    }
    for (const YamlEntry& entry : map.entries) {
      const std::string path = Join(section, entry.key);
      if (section.empty() && ignored.contains(entry.key)) continue;
      if (const KeyRow<Spec>* row = FindRow(path)) {
        row->read(entry.value, Join(prefix, path), problems, spec);
        seen.emplace_back(row, &entry.value);
      } else if (IsSection(path)) {
        ReadSection(entry.value, prefix, path, ignored, problems, spec, seen);
      } else {
        AddUnknown(entry, prefix, section, problems);
      }
    }
  }

  void CheckRequired(const YamlNode& map, const std::string& prefix, YamlProblems& problems,
                     const Seen& seen) const {
    for (const KeyRow<Spec>& row : rows_) {
      if (row.presence != Presence::kRequired) continue;
      bool is_seen = false;
      for (const auto& [seen_row, node] : seen) is_seen = is_seen || seen_row == &row;
      if (is_seen) continue;
      problems.Add(DeepestOf(map, row.path),
                   absl::StrCat(Join(prefix, row.path), ": is missing; expected ", row.type));
    }
  }

  // The section that a missing key would stand in, as far as it exists.
  static const YamlNode& DeepestOf(const YamlNode& map, const std::string& path) {
    const YamlNode* node = &map;
    for (const absl::string_view part : absl::StrSplit(path, '.')) {
      const YamlNode* next = node->Find(part);
      if (next == nullptr) break;
      node = next;
    }
    return *node;
  }

  void AddUnknown(const YamlEntry& entry, const std::string& prefix, const std::string& section,
                  YamlProblems& problems) const {
    YamlNode place = entry.value;
    place.location = entry.location;
    const std::string shown = entry.key.substr(0, 60);
    std::string subject = absl::StrCat(Join(prefix, Join(section, shown)), ": unknown key");
    const std::string nearest = NearestPath(section, entry.key);
    if (!nearest.empty()) {
      return problems.Add(place,
                          absl::StrCat(subject, "; did you mean ", Join(prefix, nearest), "?"));
    }
    const std::string parent = Join(prefix, section);
    problems.Add(place, absl::StrCat(subject, "; known keys ", parent.empty() ? "" : "of ", parent,
                                     parent.empty() ? "are " : " are ",
                                     absl::StrJoin(Children(section), ", ")));
  }

  // Whether `text` is `longer` with letters left out: "seq_len" of "sequence_length".
  static bool IsAbbreviation(absl::string_view text, absl::string_view longer) {
    if (text.size() < 3 || text.size() > longer.size() || text[0] != longer[0]) return false;
    size_t used = 0;
    for (const char c : longer) used += used < text.size() && text[used] == c ? 1 : 0;
    return used == text.size();
  }

  // A key of the same section that is spelt alike or is abbreviated or spelt out; else one spelt
  // exactly so in another section.
  std::string NearestPath(const std::string& section, const std::string& key) const {
    if (const auto sibling = NearestName(key, Children(section))) return Join(section, *sibling);
    for (const std::string& sibling : Children(section)) {
      if (IsAbbreviation(sibling, key) || IsAbbreviation(key, sibling)) {
        return Join(section, sibling);
      }
    }
    for (const KeyRow<Spec>& row : rows_) {
      const std::vector<std::string> parts = absl::StrSplit(row.path, '.');
      if (parts.back() == key) return row.path;
      for (size_t i = 0; i + 1 < parts.size(); ++i) {
        if (parts[i] != key) continue;
        return absl::StrJoin(parts.begin(), parts.begin() + static_cast<int64_t>(i) + 1, ".");
      }
    }
    return "";
  }

  std::vector<std::string> Children(const std::string& section) const {
    const std::string start = section.empty() ? "" : section + ".";
    std::vector<std::string> children;
    for (const KeyRow<Spec>& row : rows_) {
      if (!row.path.starts_with(start)) continue;
      const std::string rest = row.path.substr(start.size());
      std::string child = rest.substr(0, rest.find('.'));
      if (children.empty() || children.back() != child) children.push_back(std::move(child));
    }
    return children;
  }

  std::vector<KeyRow<Spec>> rows_;
};

}  // namespace autosp
