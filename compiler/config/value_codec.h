// How one value of a job or cluster file is read, checked and written.
//
// A codec has
//   std::string Type() const;                     its type and range in words, for messages and
//   docs void Read(node, path, problems, T& out);      leaves `out` alone where it adds a problem
//   std::string Write(value, indent) const;       YAML that reads back as `value`; "" leaves it out
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "compiler/config/yaml_tree.h"

namespace autosp {

inline constexpr int64_t kMaxInt = std::numeric_limits<int64_t>::max();

struct IntCodec {
  using Value = int64_t;
  int64_t min = 0;
  int64_t max = kMaxInt;

  std::string Type() const;
  void Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
            int64_t& out) const;
  std::string Write(int64_t value, int indent) const;
};

// An integer, or the word `auto` (unset).
struct AutoIntCodec {
  using Value = std::optional<int64_t>;
  IntCodec number;

  std::string Type() const;
  void Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
            std::optional<int64_t>& out) const;
  std::string Write(const std::optional<int64_t>& value, int indent) const;
};

// Finite; `min` itself is allowed unless above_min, `max` itself unless below_max.
struct FloatCodec {
  using Value = double;
  double min = 0.0;
  double max = std::numeric_limits<double>::max();
  bool above_min = false;
  bool below_max = false;

  std::string Type() const;
  void Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
            double& out) const;
  std::string Write(double value, int indent) const;
};

struct BoolCodec {
  using Value = bool;

  std::string Type() const { return "true or false"; }
  void Read(const YamlNode& node, const std::string& path, YamlProblems& problems, bool& out) const;
  std::string Write(bool value, int indent) const;
};

// Text of one line. `what` says what it names: "path", "name".
struct StringCodec {
  using Value = std::string;
  std::string what = "text";

  std::string Type() const { return what; }
  void Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
            std::string& out) const;
  std::string Write(const std::string& value, int indent) const;
};

// What ParseBytes takes, above 0; `auto` is unset.
struct AutoBytesCodec {
  using Value = std::optional<int64_t>;

  std::string Type() const { return "size, as in 4GiB or 512MiB, or auto"; }
  void Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
            std::optional<int64_t>& out) const;
  std::string Write(const std::optional<int64_t>& value, int indent) const;
};

// As above, without auto.
struct BytesCodec {
  using Value = int64_t;

  std::string Type() const { return "size, as in 4GiB or 512MiB"; }
  void Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
            int64_t& out) const;
  std::string Write(int64_t value, int indent) const;
};

namespace codec_internal {

void AddWrongType(const YamlNode& node, absl::string_view path, absl::string_view type,
                  YamlProblems& problems);

// The index of the word in `words`, or -1 after adding a problem.
int ReadWord(const YamlNode& node, const std::string& path, const std::vector<std::string>& words,
             YamlProblems& problems);

}  // namespace codec_internal

// One of the words that ToString gives for `values`.
template <typename Enum>
struct EnumCodec {
  using Value = Enum;
  std::vector<Enum> values;

  std::vector<std::string> Words() const {
    std::vector<std::string> words;
    for (const Enum value : values) words.emplace_back(ToString(value));
    return words;
  }
  std::string Type() const { return absl::StrJoin(Words(), ", "); }
  void Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
            Enum& out) const {
    const int index = codec_internal::ReadWord(node, path, Words(), problems);
    if (index >= 0) out = values[index];
  }
  std::string Write(Enum value, int /*indent*/) const { return std::string(ToString(value)); }
};

// A list; where it makes sense (`allow_single`) one item may stand for a list of one.
template <typename Item>
struct ListCodec {
  using Value = std::vector<typename Item::Value>;
  Item item;
  size_t min_size = 0;
  size_t max_size = std::numeric_limits<size_t>::max();
  bool allow_single = false;

  std::string Type() const {
    return absl::StrCat("list of ", min_size == max_size ? absl::StrCat(min_size, ", each ") : "",
                        item.Type());
  }
  void Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
            Value& out) const {
    if (allow_single && node.kind == YamlNode::Kind::kScalar) {
      out.resize(1);
      return item.Read(node, path, problems, out[0]);
    }
    if (node.kind != YamlNode::Kind::kSequence) {
      return codec_internal::AddWrongType(node, path, Type(), problems);
    }
    if (node.items.size() < min_size || node.items.size() > max_size) {
      const bool is_short = node.items.size() < min_size;
      return problems.Add(node, absl::StrCat(path, ": has ", node.items.size(), " items; ",
                                             is_short ? "at least " : "at most ",
                                             is_short ? min_size : max_size, " are needed"));
    }
    Value values(node.items.size());
    for (size_t i = 0; i < values.size(); ++i) {
      item.Read(node.items[i], absl::StrCat(path, "[", i, "]"), problems, values[i]);
    }
    out = std::move(values);
  }
  std::string Write(const Value& value, int indent) const {
    std::vector<std::string> texts;
    for (const auto& element : value) texts.push_back(item.Write(element, indent));
    return absl::StrCat("[", absl::StrJoin(texts, ", "), "]");
  }
};

}  // namespace autosp
