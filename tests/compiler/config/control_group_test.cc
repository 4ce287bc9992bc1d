// Groups as Linux shows them, in a folder.
#include "compiler/config/control_group.h"

#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

class ControlGroupTest : public testing::Test {
 protected:
  // `file` is "a/b/memory.max".
  void Write(const std::string& file, const std::string& text) {
    const std::string path = dir_.Join(file);
    ASSERT_THAT(MakeDirectories(path.substr(0, path.rfind('/'))), IsOk());
    ASSERT_THAT(WriteFileAtomically(path, text), IsOk());
  }
  std::optional<int64_t> LimitOf(const std::string& groups) {
    return ControlGroupMemoryLimit(groups, dir_.path());
  }

  TempDir dir_;
};

constexpr char kUnit[] = "0::/system.slice/autosp-coordinator.service\n";

// As MemoryMax= of a unit sets it.
TEST_F(ControlGroupTest, IsThatOfTheGroupAndNotOfTheTopmostAlone) {
  Write("system.slice/memory.max", "max\n");
  Write("system.slice/autosp-coordinator.service/memory.max", "2147483648\n");
  EXPECT_EQ(LimitOf(kUnit), int64_t{2} << 30);
}

TEST_F(ControlGroupTest, TheSmallestOfThoseAboveItCounts) {
  Write("system.slice/memory.max", "1000\n");
  Write("system.slice/autosp-coordinator.service/memory.max", "2000\n");
  EXPECT_EQ(LimitOf(kUnit), 1000);
  Write("memory.max", "500\n");
  EXPECT_EQ(LimitOf(kUnit), 500);
}

TEST_F(ControlGroupTest, OfVersionOneTooWithItsOwnNames) {
  const std::string groups = "5:cpu,cpuacct:/other\n3:hugetlb,memory:/docker/1\n0::/\n";
  Write("memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("memory/docker/1/memory.limit_in_bytes", "3000\n");
  Write("memory/other/memory.limit_in_bytes", "1\n");
  EXPECT_EQ(LimitOf(groups), 3000);
}

// Which shows its own group as the topmost, and perhaps the path that it has outside.
TEST_F(ControlGroupTest, OfAContainer) {
  Write("memory.max", "4000\n");
  for (const char* groups : {"0::/\n", "0::/docker/1\n", "0::/../other\n", ""}) {
    EXPECT_EQ(LimitOf(groups), 4000) << groups;
  }
}

TEST_F(ControlGroupTest, NoneWhereThereIsNone) {
  EXPECT_EQ(LimitOf(kUnit), std::nullopt);
  Write("memory.max", "max\n");
  EXPECT_EQ(LimitOf(kUnit), std::nullopt);
}

}  // namespace
}  // namespace autosp
