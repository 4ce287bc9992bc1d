#include "compiler/config/glob.h"

#include <filesystem>

#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct MatchCase {
  const char* pattern;
  const char* name;
  bool matches;
};

class GlobMatches : public testing::TestWithParam<MatchCase> {};

TEST_P(GlobMatches, AsListed) {
  EXPECT_EQ(GlobMatch(GetParam().pattern, GetParam().name), GetParam().matches)
      << GetParam().pattern << " and " << GetParam().name;
}

INSTANTIATE_TEST_SUITE_P(
    All, GlobMatches,
    testing::Values(MatchCase{"", "", true}, MatchCase{"", "a", false}, MatchCase{"*", "", true},
                    MatchCase{"*.weight", "model.layers.0.weight", true},
                    MatchCase{"*.weight", "model.layers.0.weights", false},
                    MatchCase{"model.layers.?.mlp.*", "model.layers.3.mlp.up.weight", true},
                    MatchCase{"model.layers.?.mlp.*", "model.layers.13.mlp.up.weight", false},
                    MatchCase{"*norm*", "model.layers.0.input_norm.weight", true},
                    MatchCase{"layers.[0-3].*", "layers.2.q", true},
                    MatchCase{"layers.[0-3].*", "layers.4.q", false},
                    MatchCase{"layers.[!0-3].*", "layers.4.q", true},
                    MatchCase{"layers.[]x].q", "layers.].q", true}, MatchCase{"a[b", "a[b", true},
                    MatchCase{"a\\*b", "a*b", true}, MatchCase{"a\\*b", "axb", false},
                    MatchCase{"a*b*c", "a1b2b3c", true}, MatchCase{"a*b*c", "a1b2b3d", false},
                    MatchCase{"a\\", "a\\", true}));

TEST(GlobMatch, DoesNotBacktrackExponentially) {
  std::string pattern;
  for (int i = 0; i < 30; ++i) pattern += "a*";
  EXPECT_FALSE(GlobMatch(pattern + "b", std::string(10'000, 'a')));
}

class FileGlobTest : public testing::Test {
 protected:
  void Write(const std::string& name) {
    const std::string path = dir_.Join(name);
    ASSERT_THAT(MakeDirectories(std::filesystem::path(path).parent_path().string()), IsOk());
    ASSERT_THAT(WriteFileAtomically(path, "x"), IsOk());
  }

  // What the pattern matches, as paths inside the folder.
  std::vector<std::string> Expand(const std::string& pattern) {
    const auto found = ExpandFileGlob(dir_.Join(pattern));
    EXPECT_THAT(found, IsOk());
    std::vector<std::string> names;
    for (const std::string& path : *found) names.push_back(path.substr(dir_.path().size() + 1));
    return names;
  }

  TempDir dir_;
};

TEST_F(FileGlobTest, KeepsToOneFolderOrCrossesThem) {
  for (const char* name :
       {"a.py", "b.py", "c.txt", "d/e.py", "d/f/g.py", ".hidden/h.py", ".i.py"}) {
    Write(name);
  }
  EXPECT_THAT(Expand("*.py"), ElementsAre("a.py", "b.py"));
  EXPECT_THAT(Expand("*/*.py"), ElementsAre("d/e.py"));
  EXPECT_THAT(Expand("**/*.py"), ElementsAre("a.py", "b.py", "d/e.py", "d/f/g.py"));
  EXPECT_THAT(Expand("d/**"), ElementsAre("d/e.py", "d/f/g.py"));
  EXPECT_THAT(Expand("**/f/*"), ElementsAre("d/f/g.py"));
  EXPECT_THAT(Expand(".*/*.py"), ElementsAre(".hidden/h.py"));
  EXPECT_THAT(Expand("[ab].py"), ElementsAre("a.py", "b.py"));
  EXPECT_THAT(Expand("c.txt"), ElementsAre("c.txt"));
}

TEST_F(FileGlobTest, MatchesNothingWhereNothingIs) {
  Write("a.py");
  EXPECT_THAT(Expand("*.txt"), IsEmpty());
  EXPECT_THAT(Expand("missing/*.py"), IsEmpty());
  EXPECT_THAT(Expand("missing.py"), IsEmpty());
  EXPECT_THAT(Expand("a.py/*"), IsEmpty());
}

TEST_F(FileGlobTest, TakesAnExistingFileForItself) {
  Write("a[1].py");
  Write("a1.py");
  EXPECT_THAT(Expand("a[1].py"), ElementsAre("a[1].py"));
}

TEST_F(FileGlobTest, DoesNotFollowLinksInCircles) {
  Write("d/a.py");
  std::filesystem::create_directory_symlink(dir_.path(), dir_.Join("d/loop"));
  EXPECT_THAT(Expand("**/*.py"), ElementsAre("d/a.py"));
}

}  // namespace
}  // namespace autosp
