#include "common/process_setup.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <vector>

#include "common/file.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

TEST(ProcessSetupTest, OpensAsManyFilesAsTheSystemAllows) {
  rlimit files = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  if (files.rlim_max < 256) GTEST_SKIP() << "the hard limit is " << files.rlim_max;
  files.rlim_cur = 64;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
  EXPECT_EQ(RaiseOpenFilesLimit(), MaxOpenFiles());
  std::vector<UniqueFd> opened;
  for (int i = 0; i < 200; ++i) {
    opened.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(opened.back().is_open()) << i;
  }
}

}  // namespace
}  // namespace autosp
