#include "compiler/config/yaml_tree.h"

#include "compiler/config/job_yaml.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(YamlTree, KnowsThePlaceOfEveryNode) {
  ASSERT_OK_AND_ASSIGN(const YamlNode root, ParseYamlTree("a:\n  b: [x, 'y']\n", "f"));
  ASSERT_EQ(root.kind, YamlNode::Kind::kMap);
  EXPECT_EQ(root.entries[0].location.line, 1);
  const YamlNode* b = root.Find("a")->Find("b");
  ASSERT_NE(b, nullptr);
  ASSERT_EQ(b->items.size(), 2u);
  EXPECT_EQ(b->items[1].text, "y");
  EXPECT_EQ(b->items[1].location.line, 2);
  EXPECT_EQ(b->items[1].location.column, 10);
  EXPECT_TRUE(b->items[1].is_quoted);
  EXPECT_FALSE(b->items[0].is_quoted);
}

TEST(YamlTree, TellsNothingFromEmptyText) {
  ASSERT_OK_AND_ASSIGN(const YamlNode root, ParseYamlTree("a:\nb: ''\nc: ~\n", "f"));
  EXPECT_EQ(root.Find("a")->kind, YamlNode::Kind::kNull);
  EXPECT_EQ(root.Find("b")->kind, YamlNode::Kind::kScalar);
  EXPECT_EQ(root.Find("c")->kind, YamlNode::Kind::kNull);
}

struct BadText {
  std::string text;
  std::string message;
};

class YamlTreeRefuses : public testing::TestWithParam<BadText> {};

TEST_P(YamlTreeRefuses, WithTheExactMessage) {
  EXPECT_THAT(ParseYamlTree(GetParam().text, "f"), IsError(kInvalid, GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, YamlTreeRefuses,
    testing::Values(
        BadText{"", "f: the file is empty"}, BadText{"# only a comment\n", "f: the file is empty"},
        BadText{"a: 1\n---\nb: 2\n", "f: more than one document (---); keep one per file"},
        BadText{"a: &x 1\n", "f:1:4: anchor &x: not allowed here; write the value out"},
        BadText{"a: [*.bias]\n",
                "f:1:5: alias (*name): not allowed here; text that begins with * needs quotes"},
        BadText{"a: !!int 3\n", "f:1:4: tag tag:yaml.org,2002:int: not allowed here; remove it"},
        BadText{"a: 1\nb: 2\na: 3\n", "f:3:1: key a: appears twice in one map; keep one of them"},
        BadText{"? [a, b]\n: 1\n", "f:1:3: key: a list or a map cannot be a key; use a name"},
        BadText{"a: [1, 2\n", "f:2:1: not YAML: end of sequence flow not found"},
        BadText{std::string("a: \0b", 5),
                "f:1:4: character 0x00: control characters are not allowed; is this a text file?"},
        // yaml-cpp takes this one for the end of the file: "b" would vanish in silence.
        BadText{
            "a: 1\n\x04\nb: 2\n",
            "f:2:1: character 0x04: control characters are not allowed; is this a text file?"}));

TEST(YamlTree, LimitsSize) {
  const std::string text(kMaxConfigBytes + 1, ' ');
  EXPECT_THAT(ParseYamlTree(text, "f"),
              IsError(kInvalid,
                      "f: 1048577 bytes; at most 1048576 are read; is this the right "
                      "file?"));
}

TEST(YamlTree, LimitsDepth) {
  const std::string fits = std::string(kMaxConfigDepth, '[') + std::string(kMaxConfigDepth, ']');
  EXPECT_THAT(ParseYamlTree(fits, "f"), IsOk());
  EXPECT_THAT(ParseYamlTree("[" + fits + "]", "f"),
              IsError(kInvalid,
                      "f:1:17: nesting: deeper than 16 levels, which no key needs; "
                      "flatten it"));
  // Far past the depth at which a recursive parser overflows its stack.
  EXPECT_THAT(ParseYamlTree(std::string(500'000, '['), "f"), IsError(kInvalid, HasSubstr("f:1:")));
}

TEST(YamlTree, LimitsKeysOfAMap) {
  std::string text;
  for (int i = 0; i < 1001; ++i) text += "k" + std::to_string(i) + ": 1\n";
  EXPECT_THAT(ParseYamlTree(text, "f"),
              IsError(kInvalid, "f:1001:1: map: more than 1000 keys, which no job needs"));
}

// Each level doubles what the one before holds: 2^20 nodes if aliases were followed.
TEST(YamlTree, RefusesAliasBombs) {
  std::string text = "a0: &a0 [x, x]\n";
  for (int i = 1; i <= 20; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before + ", " + before +
            "]\n";
  }
  EXPECT_THAT(ParseYamlTree(text, "f"), IsError(kInvalid, StartsWith("f:1:5: anchor &a0")));
}

TEST(YamlOverrideValue, IsPlainUnlessItOpensAListOrQuotes) {
  ASSERT_OK_AND_ASSIGN(const YamlNode plain, ParseYamlOverrideValue("*.py: x", "--set a"));
  EXPECT_EQ(plain.text, "*.py: x");
  ASSERT_OK_AND_ASSIGN(const YamlNode list, ParseYamlOverrideValue("[1, 2]", "--set a"));
  EXPECT_EQ(list.items.size(), 2u);
  EXPECT_EQ(list.items[0].origin, "--set a");
  ASSERT_OK_AND_ASSIGN(const YamlNode quoted, ParseYamlOverrideValue("'12'", "--set a"));
  EXPECT_TRUE(quoted.is_quoted);
  ASSERT_OK_AND_ASSIGN(const YamlNode nothing, ParseYamlOverrideValue("", "--set a"));
  EXPECT_EQ(nothing.kind, YamlNode::Kind::kNull);
}

TEST(QuoteYaml, ReadsBackAsTheSameText) {
  for (const std::string text :
       {"plain",    "/a/b.c",   "a: b", "# x", "*", "true", "null", "-1", "~", "\"quoted\" \\ text",
        " spaces ", "\xc3\xbc", "[x]",  "a,b", "{", "!tag", "&a",   "%",  "@", "`",
        "'",        "|",        ">"}) {
    const std::string line = "k: [" + QuoteYaml(text) + "]";
    ASSERT_OK_AND_ASSIGN(const YamlNode root, ParseYamlTree(line, "f"));
    ASSERT_EQ(root.Find("k")->items.size(), 1u) << line;
    EXPECT_EQ(root.Find("k")->items[0].text, text) << line;
  }
}

}  // namespace
}  // namespace autosp
