#include "compiler/config/value_codec.h"

#include <cmath>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "common/bytes.h"
#include "common/edit_distance.h"

namespace autosp {
namespace codec_internal {

void AddWrongType(const YamlNode& node, absl::string_view path, absl::string_view type,
                  YamlProblems& problems) {
  problems.Add(node, absl::StrCat(path, ": is ", DescribeYamlNode(node),
                                  node.is_quoted ? " in quotes" : "", "; expected ", type));
}

int ReadWord(const YamlNode& node, const std::string& path, const std::vector<std::string>& words,
             YamlProblems& problems) {
  std::string hint;
  if (node.kind == YamlNode::Kind::kScalar) {
    for (size_t i = 0; i < words.size(); ++i) {
      if (node.text == words[i]) return static_cast<int>(i);
    }
    const auto nearest = NearestName(node.text, words);
    if (nearest.has_value()) hint = absl::StrCat("; did you mean ", *nearest, "?");
  }
  problems.Add(node,
               absl::StrCat(path, ": is ", DescribeYamlNode(node), "; expected ",
                            words.size() == 1 ? "" : "one of ", absl::StrJoin(words, ", "), hint));
  return -1;
}

}  // namespace codec_internal

namespace {

using codec_internal::AddWrongType;

// 15 digits where they suffice, as a person would write; 17, which always do, where not.
std::string ShortestDouble(double value) {
  std::string text = absl::StrFormat("%.15g", value);
  double back = 0.0;
  if (!absl::SimpleAtod(text, &back) || back != value) text = absl::StrFormat("%.17g", value);
  return text;
}

bool IsPlainScalar(const YamlNode& node) {
  return node.kind == YamlNode::Kind::kScalar && !node.is_quoted;
}

// Nothing, and a problem, where the node is no size above 0.
std::optional<int64_t> ReadBytes(const YamlNode& node, const std::string& path,
                                 absl::string_view type, YamlProblems& problems) {
  absl::StatusOr<int64_t> bytes = absl::InvalidArgumentError("");
  if (node.kind == YamlNode::Kind::kScalar) bytes = ParseBytes(node.text);
  if (bytes.ok() && *bytes > 0) return *bytes;
  AddWrongType(node, path, type, problems);
  return std::nullopt;
}

}  // namespace

std::string IntCodec::Type() const {
  if (max == kMaxInt && min == std::numeric_limits<int64_t>::min()) return "integer";
  if (max == kMaxInt) return absl::StrCat("integer of at least ", min);
  return absl::StrCat("integer from ", min, " to ", max);
}

void IntCodec::Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
                    int64_t& out) const {
  int64_t value = 0;
  if (!IsPlainScalar(node) || !absl::SimpleAtoi(node.text, &value)) {
    return AddWrongType(node, path, Type(), problems);
  }
  if (value < min || value > max) {
    return problems.Add(node,
                        absl::StrCat(path, ": ", value, " is out of range; expected ", Type()));
  }
  out = value;
}

std::string IntCodec::Write(int64_t value, int /*indent*/) const { return absl::StrCat(value); }

std::string AutoIntCodec::Type() const { return absl::StrCat(number.Type(), ", or auto"); }

void AutoIntCodec::Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
                        std::optional<int64_t>& out) const {
  int64_t value = 0;
  if (IsPlainScalar(node) && node.text == "auto") {
    out = std::nullopt;
  } else if (!IsPlainScalar(node) || !absl::SimpleAtoi(node.text, &value)) {
    AddWrongType(node, path, Type(), problems);
  } else {
    number.Read(node, path, problems, value);
    out = value;
  }
}

std::string AutoIntCodec::Write(const std::optional<int64_t>& value, int /*indent*/) const {
  return value.has_value() ? absl::StrCat(*value) : "auto";
}

std::string FloatCodec::Type() const {
  const bool has_max = max != std::numeric_limits<double>::max();
  std::string type = absl::StrCat("number ", above_min ? "above " : "of at least ", min);
  if (has_max) absl::StrAppend(&type, below_max ? " and below " : " and at most ", max);
  return type;
}

void FloatCodec::Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
                      double& out) const {
  double value = 0.0;
  if (!IsPlainScalar(node) || !absl::SimpleAtod(node.text, &value)) {
    return AddWrongType(node, path, Type(), problems);
  }
  const bool is_low = above_min ? value <= min : value < min;
  const bool is_high = below_max ? value >= max : value > max;
  if (!std::isfinite(value) || is_low || is_high) {
    return problems.Add(node,
                        absl::StrCat(path, ": ", node.text, " is out of range; expected ", Type()));
  }
  out = value;
}

std::string FloatCodec::Write(double value, int /*indent*/) const { return ShortestDouble(value); }

void BoolCodec::Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
                     bool& out) const {
  if (IsPlainScalar(node) && (node.text == "true" || node.text == "false")) {
    out = node.text == "true";
    return;
  }
  AddWrongType(node, path, Type(), problems);
}

std::string BoolCodec::Write(bool value, int /*indent*/) const { return value ? "true" : "false"; }

void StringCodec::Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
                       std::string& out) const {
  if (node.kind != YamlNode::Kind::kScalar) return AddWrongType(node, path, Type(), problems);
  for (const char c : node.text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      return problems.Add(node, absl::StrCat(path, ": holds a control character; expected ", Type(),
                                             " on one line"));
    }
  }
  if (node.text.empty()) {
    return problems.Add(
        node, absl::StrCat(path, ": is empty; expected ", Type(), ", or leave the key out"));
  }
  out = node.text;
}

std::string StringCodec::Write(const std::string& value, int /*indent*/) const {
  return value.empty() ? "" : QuoteYaml(value);
}

void AutoBytesCodec::Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
                          std::optional<int64_t>& out) const {
  if (IsPlainScalar(node) && node.text == "auto") {
    out = std::nullopt;
  } else if (const auto bytes = ReadBytes(node, path, Type(), problems)) {
    out = bytes;
  }
}

std::string AutoBytesCodec::Write(const std::optional<int64_t>& value, int /*indent*/) const {
  return value.has_value() ? FormatBytesExactly(*value) : "auto";
}

void BytesCodec::Read(const YamlNode& node, const std::string& path, YamlProblems& problems,
                      int64_t& out) const {
  if (const auto bytes = ReadBytes(node, path, Type(), problems)) out = *bytes;
}

std::string BytesCodec::Write(int64_t value, int /*indent*/) const {
  return FormatBytesExactly(value);
}

}  // namespace autosp
