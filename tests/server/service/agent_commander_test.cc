#include "server/service/agent_commander.h"

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "gtest/gtest.h"
#include "server/metrics.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

constexpr absl::Duration kIdle = absl::Milliseconds(50);
constexpr int kNumNodes = 40;

// Nothing listens there.
constexpr char kRefusing[] = "127.0.0.1:1";

int64_t NumThreads() { return std::ssize(*ListFolder("/proc/self/task")); }

class AgentCommanderTest : public testing::Test {
 protected:
  AgentCommanderTest()
      : store_(*JobStore::Open(JoinPath(dir_.path(), "autosp.db"))),
        metrics_(kCoordinatorMetrics),
        driver_(CoordinatorOptions(), {}, *store_, metrics_, clock_) {}

  void Register(const std::string& node) {
    driver_.Handle(AgentRegistered{.info = {.node = NodeId(node),
                                            .instance = "one",
                                            .address = kRefusing,
                                            .device_kind = "cpu",
                                            .num_devices = 1}});
  }

  ProbeAgent ProbeOf(const std::string& node) {
    return {.node = NodeId(node),
            .instance = "one",
            .address = kRefusing,
            .asked_at = clock_.Now() + absl::Seconds(1)};
  }

  int64_t NumLost() {
    return std::ranges::count(driver_.Nodes(), NodeView::State::kLost, &NodeView::state);
  }

  static bool Eventually(const std::function<bool()>& is_so) {
    const absl::Duration end = Clock::Real().Steady() + absl::Seconds(20);
    while (!is_so() && Clock::Real().Steady() < end) Clock::Real().Sleep(absl::Milliseconds(5));
    return is_so();
  }

  TempDir dir_;
  FakeClock clock_;
  std::unique_ptr<JobStore> store_;
  MetricRegistry metrics_;
  CoordinatorDriver driver_;
};

TEST_F(AgentCommanderTest, NodesThatComeAndGoLeaveNoThreads) {
  AgentCommander commander(driver_, *store_, Credentials(), kIdle);
  const int64_t before = NumThreads();
  for (int i = 0; i < kNumNodes; ++i) {
    Register(absl::StrCat("spot-", i));
    commander.Perform(ProbeOf(absl::StrCat("spot-", i)));
  }
  EXPECT_TRUE(Eventually([&] { return NumLost() == kNumNodes; })) << NumLost();
  EXPECT_TRUE(Eventually([&] { return NumThreads() <= before; })) << NumThreads();
}

TEST_F(AgentCommanderTest, ANodeThatWasIdleIsServedAgain) {
  AgentCommander commander(driver_, *store_, Credentials(), kIdle);
  for (int i = 0; i < 5; ++i) {
    Register("n");
    ASSERT_EQ(NumLost(), 0);
    commander.Perform(ProbeOf("n"));
    EXPECT_TRUE(Eventually([&] { return NumLost() == 1; }));
    // At the moment in which the thread ends, before it and after it.
    Clock::Real().Sleep(kIdle + absl::Milliseconds(2 * i - 4));
  }
}

}  // namespace
}  // namespace autosp
