#include "common/clock.h"

#include "gtest/gtest.h"

namespace autosp {
namespace {

TEST(FakeClockTest, StandsStillUntilTold) {
  FakeClock clock(absl::FromUnixSeconds(100));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(100));
  EXPECT_EQ(clock.Steady(), absl::ZeroDuration());
  clock.Advance(absl::Seconds(5));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(105));
  EXPECT_EQ(clock.Steady(), absl::Seconds(5));
}

TEST(FakeClockTest, SleepMovesTimeAtOnce) {
  FakeClock clock;
  const absl::Time before = absl::Now();
  clock.Sleep(absl::Hours(1));
  EXPECT_EQ(clock.Steady(), absl::Hours(1));
  EXPECT_LT(absl::Now() - before, absl::Minutes(1));
}

TEST(FakeClockTest, DoesNotGoBack) {
  FakeClock clock;
  clock.Advance(absl::Seconds(-5));
  EXPECT_EQ(clock.Steady(), absl::ZeroDuration());
}

TEST(RealClockTest, SteadyAdvancesBySleep) {
  Clock& clock = Clock::Real();
  const absl::Duration before = clock.Steady();
  clock.Sleep(absl::Milliseconds(5));
  EXPECT_GE(clock.Steady() - before, absl::Milliseconds(5));
}

TEST(RealClockTest, NowIsWallTime) {
  EXPECT_LT(absl::AbsDuration(Clock::Real().Now() - absl::Now()), absl::Seconds(10));
}

}  // namespace
}  // namespace autosp
