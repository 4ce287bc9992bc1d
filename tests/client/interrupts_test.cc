#include "client/interrupts.h"

#include <signal.h>

#include <atomic>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

// Whether `count` becomes that within a few seconds.
bool Becomes(const std::atomic<int>& count, int wanted) {
  for (int i = 0; i < 500 && count != wanted; ++i) absl::SleepFor(absl::Milliseconds(10));
  return count == wanted;
}

TEST(Interrupts, CountsWhatWouldEndTheProcess) {
  signal(SIGINT, SIG_DFL);
  std::atomic<int> count = 0;
  {
    const Interrupts interrupts([&count](int n) { count = n; });
    raise(SIGINT);
    EXPECT_TRUE(Becomes(count, 1));
    raise(SIGTERM);
    EXPECT_TRUE(Becomes(count, 2));
  }
  EXPECT_EQ(signal(SIGINT, SIG_DFL), SIG_DFL) << "the handler from before is back";
}

// As under nohup.
TEST(Interrupts, LeavesIgnoredWhatIsIgnored) {
  signal(SIGHUP, SIG_IGN);
  std::atomic<int> count = 0;
  {
    const Interrupts interrupts([&count](int n) { count = n; });
    raise(SIGHUP);
    raise(SIGTERM);  // Comes after it.
    EXPECT_TRUE(Becomes(count, 1));
    absl::SleepFor(absl::Milliseconds(50));
    EXPECT_EQ(count, 1);
  }
  EXPECT_EQ(signal(SIGHUP, SIG_DFL), SIG_IGN);
}

}  // namespace
}  // namespace autosp
