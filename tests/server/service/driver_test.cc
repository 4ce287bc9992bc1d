// The driver on a disk that fills up.
#include "server/service/driver.h"

#include <sys/resource.h>

#include <csignal>

#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/metrics.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

const AttemptId kUnlucky{JobId("unlucky"), Generation(1)};
const AttemptId kHealthy{JobId("healthy"), Generation(1)};

// As on a full disk, every write of this process fails until it is gone.
class FullDisk {
 public:
  FullDisk() {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old_);
    rlimit limit = old_;
    limit.rlim_cur = 1;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() { setrlimit(RLIMIT_FSIZE, &old_); }

 private:
  rlimit old_ = {};
};

class DriverTest : public testing::Test {
 protected:
  DriverTest()
      : store_(*JobStore::Open(JoinPath(dir_.path(), "autosp.db"))),
        metrics_(kCoordinatorMetrics),
        driver_(CoordinatorOptions(), {}, *store_, metrics_, clock_) {
    driver_.Handle(AgentRegistered{.info = {.node = NodeId("n"),
                                            .instance = "n1",
                                            .address = "n:1",
                                            .device_kind = "cpu",
                                            .num_devices = 2}});
  }

  void RunJob(const AttemptId& attempt) {
    auto request = std::make_shared<JobRequest>();
    request->request_id = RequestId(attempt.job.value());
    request->name = attempt.job.value();
    request->num_steps = 10;
    const JobInputs inputs;
    ASSERT_THAT(
        driver_.Handle(JobSubmitted{.job = attempt.job, .request = request}, &inputs).status,
        IsOk());
    driver_.Handle(CommandDone{.node = NodeId("n"), .attempt = attempt});
  }

  static AttemptStatus Running(const AttemptId& attempt) {
    return {.attempt = attempt,
            .phase = AttemptStatus::Phase::kRunning,
            .ranks = {{.rank = Rank(0), .state = RankState::kRunning}}};
  }

  static AttemptStatus Killed(const AttemptId& attempt) {
    AttemptStatus status{.attempt = attempt,
                         .phase = AttemptStatus::Phase::kEnded,
                         .ranks = {{.rank = Rank(0), .state = RankState::kLost}}};
    status.ranks[0].exit.emplace().signal_number = SIGKILL;
    return status;
  }

  Decision Beat(std::vector<AttemptStatus> attempts) {
    const Decision decision = driver_.Handle(AgentHeartbeat{.node = NodeId("n"),
                                                            .instance = "n1",
                                                            .sequence = ++sequence_,
                                                            .last_answer_token = token_,
                                                            .attempts = std::move(attempts)});
    token_ = std::max(token_, decision.answer.answer_token);
    return decision;
  }

  JobState StateOf(const AttemptId& attempt) { return store_->GetJob(attempt.job)->state; }

  TempDir dir_;
  FakeClock clock_;
  std::unique_ptr<JobStore> store_;
  MetricRegistry metrics_;
  CoordinatorDriver driver_;
  int64_t sequence_ = 0;
  int64_t token_ = 0;
};

TEST_F(DriverTest, AHeartbeatThatCannotBeStoredRenewsTheLease) {
  RunJob(kHealthy);
  RunJob(kUnlucky);
  ASSERT_THAT(Beat({Running(kHealthy), Running(kUnlucky)}).status, IsOk());
  ASSERT_EQ(StateOf(kHealthy), JobState::kRunning);
  {
    const FullDisk full;
    // For longer than the lease.
    for (int i = 0; i < 20; ++i) {
      clock_.Advance(absl::Seconds(1));
      driver_.Handle(Tick());
      const Decision decision = Beat({Running(kHealthy), Killed(kUnlucky)});
      ASSERT_THAT(decision.status, IsOk());
      EXPECT_GT(decision.answer.answer_token, 0);
      EXPECT_THAT(decision.answer.release_attempts, testing::IsEmpty()) << "it is not stored";
    }
    EXPECT_FALSE(driver_.Handle(CancelRequested{.job = kHealthy.job}).status.ok());
    EXPECT_EQ(StateOf(kUnlucky), JobState::kRunning);
  }
  // What the list says is taken up when it can be written.
  const Decision decision = Beat({Running(kHealthy), Killed(kUnlucky)});
  EXPECT_THAT(decision.answer.release_attempts, testing::ElementsAre(kUnlucky));
  EXPECT_EQ(StateOf(kUnlucky), JobState::kFailed);
  driver_.Handle(Tick());
  EXPECT_EQ(StateOf(kHealthy), JobState::kRunning);
}

TEST_F(DriverTest, AStrangerGetsNoLeaseFromAFullDisk) {
  RunJob(kHealthy);
  const FullDisk full;
  EXPECT_THAT(driver_.Handle(AgentHeartbeat{.node = NodeId("n"), .instance = "n2"}).status,
              IsError(absl::StatusCode::kNotFound, testing::HasSubstr("has not registered")));
}

}  // namespace
}  // namespace autosp
