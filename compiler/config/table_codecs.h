// Codecs (value_codec.h) for values that are maps with a key table of their own.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compiler/config/key_table.h"
#include "compiler/config/yaml_tree.h"

namespace autosp {

// A map from names of the user's choice to maps with the keys of a table.
template <typename Item>
struct MapOfCodec {
  using Value = std::map<std::string, Item>;
  const KeyTable<Item>& (*table)();
  std::string name;         // "<input>", in the reference
  std::string parent_path;  // "data.inputs"

  std::string Type() const { return absl::StrCat("map of ", name, " to a map"); }
  void Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
            Value& out) const {
    if (node.kind == YamlNode::Kind::kNull) return;
    if (node.kind != YamlNode::Kind::kMap) {
      return problems.Add(
          node, absl::StrCat(path, ": is ", DescribeYamlNode(node), "; expected ", Type()));
    }
    for (const YamlEntry& entry : node.entries) {
      table().Read(entry.value, absl::StrCat(path, ".", entry.key), problems, out[entry.key]);
    }
  }
  std::string Write(const Value& value, int indent) const {
    std::string text;
    for (const auto& [key, item] : value) {
      absl::StrAppend(&text, "\n", std::string(indent, ' '), QuoteYaml(key), ":\n",
                      table().Write(item, indent + 2));
      text.pop_back();  // The caller ends the line.
    }
    return text;
  }
  std::vector<KeyInfo> Nested() const {
    std::vector<KeyInfo> infos = table().Describe();
    for (KeyInfo& info : infos) info.path = absl::StrCat(parent_path, ".", name, ".", info.path);
    return infos;
  }
};

// A list of maps with the keys of a table.
template <typename Item>
struct ListOfMapsCodec {
  using Value = std::vector<Item>;
  const KeyTable<Item>& (*table)();
  std::string parent_path;

  std::string Type() const { return "list of maps, at least one"; }
  void Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
            Value& out) const {
    if (node.kind != YamlNode::Kind::kSequence || node.items.empty()) {
      return problems.Add(
          node, absl::StrCat(path, ": is ",
                             node.kind == YamlNode::Kind::kSequence ? "an empty list"
                                                                    : DescribeYamlNode(node),
                             "; expected a ", Type()));
    }
    out.resize(node.items.size());
    for (size_t i = 0; i < out.size(); ++i) {
      table().Read(node.items[i], absl::StrCat(path, "[", i, "]"), problems, out[i]);
    }
  }
  std::string Write(const Value& value, int indent) const {
    std::string text;
    for (const Item& item : value) {
      std::string block = table().Write(item, indent + 2);
      block[indent] = '-';  // The first key stands on the line of the dash.
      absl::StrAppend(&text, "\n", block);
      text.pop_back();
    }
    return text;
  }
  std::vector<KeyInfo> Nested() const {
    std::vector<KeyInfo> infos = table().Describe();
    for (KeyInfo& info : infos) info.path = absl::StrCat(parent_path, "[].", info.path);
    return infos;
  }
};

}  // namespace autosp
