#include "worker/agent/attempt_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "common/error_info.h"
#include "worker/agent/agent_errors.h"

namespace autosp::agent {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr absl::Duration kLease = absl::Seconds(15);

AttemptKey Key(int64_t generation, const char* job = "job-a") {
  return {JobId(job), Generation(generation)};
}

std::string ReasonOf(const absl::Status& status) { return GetErrorInfo(status).reason; }

// A node with four devices, whose lease began at time zero.
class AttemptTableTest : public ::testing::Test {
 protected:
  AttemptTableTest() { table_.RenewLease(now_, kLease); }

  Reservation TwoRanks(const AttemptKey& key, int first_device = 0) {
    return {.key = key,
            .slots = {{Rank(0), 0, first_device}, {Rank(1), 1, first_device + 1}},
            .commit_timeout = absl::Seconds(10)};
  }
  absl::Status Reserve(const Reservation& reservation) {
    return table_.Reserve(reservation, now_, effects_).status();
  }
  void Prepare(const AttemptKey& key) {
    ASSERT_TRUE(Reserve(TwoRanks(key)).ok());
    ASSERT_TRUE(table_.FilesReady(key).ok());
  }
  void Start(const AttemptKey& key) {
    Prepare(key);
    ASSERT_TRUE(table_.Commit(key, now_, effects_).ok());
    for (const int rank : {0, 1}) {
      table_.BeginStart(key, Rank(rank));
      table_.Started(key, Rank(rank), 100 + rank, now_, effects_);
      ASSERT_TRUE(table_.Hello(key, Rank(rank), 100 + rank, now_, effects_).ok());
    }
    effects_.clear();
  }
  // The process is gone, and everything that it said has arrived.
  void End(const AttemptKey& key, int rank, const ProcessExit& exit) {
    table_.ProcessEnded(key, Rank(rank), exit, now_, effects_);
    table_.StreamClosed(key, Rank(rank), now_, effects_);
    table_.LogClosed(key, Rank(rank), now_, effects_);
  }
  void Killed(const AttemptKey& key, int rank) { End(key, rank, {.signal_number = SIGKILL}); }
  // As the agent does for SignalRank.
  void Signal(const AttemptKey& key, int rank, int signal_number = SIGKILL) {
    table_.Signalled(key, Rank(rank), signal_number);
  }
  void Advance(absl::Duration duration) {
    now_ += duration;
    table_.Tick(now_, effects_);
  }
  void KeepLease() { table_.RenewLease(now_, kLease); }
  RankState StateOf(const AttemptKey& key, int rank) {
    return table_.Find(key)->FindRank(Rank(rank))->state;
  }
  Effects TakeEffects() { return std::exchange(effects_, {}); }

  absl::Duration now_;
  Effects effects_;
  AttemptTable table_{NodeId("node-0"), 4};
};

Effect Kill(const AttemptKey& key, int rank) { return SignalRank{key, Rank(rank), SIGKILL}; }
Effect Terminate(const AttemptKey& key, int rank) { return SignalRank{key, Rank(rank), SIGTERM}; }
Effect CleanUp(const AttemptKey& key) { return CleanUpAttempt{key}; }

TEST_F(AttemptTableTest, RunsToItsEnd) {
  Start(Key(1));
  ASSERT_TRUE(table_.StepDone(Key(1), Rank(0), 1, now_).ok());
  ASSERT_TRUE(
      table_.Finished(Key(1), Rank(0), {.outputs = {{.path = "/out/weights"}}}, now_, effects_)
          .ok());
  ASSERT_TRUE(table_.Finished(Key(1), Rank(1), {}, now_, effects_).ok());
  End(Key(1), 0, {.exit_code = 0});
  EXPECT_EQ(table_.Find(Key(1))->phase, AttemptPhase::kRunning);
  EXPECT_EQ(table_.NumDevicesTaken(), 2);
  End(Key(1), 1, {.exit_code = 0});
  EXPECT_EQ(table_.Find(Key(1))->phase, AttemptPhase::kEnded);
  EXPECT_EQ(table_.Find(Key(1))->end_reason, "");
  EXPECT_EQ(StateOf(Key(1), 0), RankState::kFinished);
  EXPECT_EQ(table_.NumDevicesTaken(), 0);
  EXPECT_EQ(effects_.back(), CleanUp(Key(1)));

  table_.Release(Key(1), effects_);
  EXPECT_EQ(effects_.back(), Effect(ForgetAttempt{Key(1)}));
  EXPECT_EQ(table_.Find(Key(1)), nullptr);
}

TEST_F(AttemptTableTest, CommitStartsEachRankOnce) {
  Prepare(Key(1));
  ASSERT_TRUE(table_.Commit(Key(1), now_, effects_).ok());
  EXPECT_THAT(TakeEffects(),
              ElementsAre(Effect(StartRank{Key(1), Rank(0)}), Effect(StartRank{Key(1), Rank(1)})));
  ASSERT_TRUE(table_.Commit(Key(1), now_, effects_).ok()) << "a repeated commit is no error";
  EXPECT_THAT(effects_, IsEmpty());
}

TEST_F(AttemptTableTest, CommitNeedsAPreparedAttempt) {
  const absl::Status unknown = table_.Commit(Key(1), now_, effects_);
  EXPECT_EQ(ReasonOf(unknown), kReasonAttemptNotPrepared) << unknown;
  ASSERT_TRUE(Reserve(TwoRanks(Key(1))).ok());
  const absl::Status early = table_.Commit(Key(1), now_, effects_);
  EXPECT_EQ(ReasonOf(early), kReasonAttemptNotPrepared) << early;
  EXPECT_THAT(effects_, IsEmpty());
}

TEST_F(AttemptTableTest, RefusesStaleGenerationsByBothNumbers) {
  Prepare(Key(5));
  const absl::Status statuses[] = {
      Reserve(TwoRanks(Key(3))),
      table_.Commit(Key(3), now_, effects_),
      table_.Abort(Key(3), now_, effects_),
      table_.Stop(Key(3), absl::ZeroDuration(), "", now_, effects_),
      table_.Hello(Key(3), Rank(0), 1, now_, effects_),
      table_.StepDone(Key(3), Rank(0), 1, now_),
      table_.Finished(Key(3), Rank(0), {}, now_, effects_),
      table_.Failed(Key(3), Rank(0), {}, now_, effects_),
  };
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_EQ(ReasonOf(status), kReasonStaleGeneration);
    EXPECT_EQ(status.message(),
              "generation 3 of job job-a is stale: this node has seen generation 5");
    EXPECT_EQ(GetErrorInfo(status).metadata["newest_generation"], "5");
  }
  EXPECT_THAT(effects_, IsEmpty());
  EXPECT_EQ(table_.Find(Key(5))->phase, AttemptPhase::kPrepared) << "the newer one is untouched";
}

TEST_F(AttemptTableTest, AnAbortThatOvertakesThePrepareForbidsIt) {
  ASSERT_TRUE(table_.Abort(Key(1), now_, effects_).ok());
  EXPECT_EQ(ReasonOf(Reserve(TwoRanks(Key(1)))), kReasonAttemptOver);
  EXPECT_TRUE(Reserve(TwoRanks(Key(2))).ok());
}

TEST_F(AttemptTableTest, AnEndedAttemptIsNotStartedAgain) {
  Start(Key(1));
  Killed(Key(1), 0);
  Signal(Key(1), 1);
  Killed(Key(1), 1);
  EXPECT_EQ(ReasonOf(Reserve(TwoRanks(Key(1)))), kReasonAttemptOver);
  EXPECT_EQ(ReasonOf(table_.Commit(Key(1), now_, effects_)), kReasonAttemptOver);
  table_.Release(Key(1), effects_);
  EXPECT_EQ(ReasonOf(Reserve(TwoRanks(Key(1)))), kReasonAttemptOver) << "also once released";
}

TEST_F(AttemptTableTest, ADeviceBelongsToOneAttempt) {
  Prepare(Key(1));
  const absl::Status taken = Reserve(TwoRanks(Key(1, "job-b"), 1));
  EXPECT_EQ(taken.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(taken), kReasonDeviceTaken);
  EXPECT_THAT(std::string(taken.message()), HasSubstr("device 1"));
  EXPECT_THAT(std::string(taken.message()), HasSubstr("2 of 4 devices are free"));
  EXPECT_EQ(table_.Find(Key(1, "job-b")), nullptr);
  EXPECT_TRUE(Reserve(TwoRanks(Key(1, "job-b"), 2)).ok());
}

TEST_F(AttemptTableTest, RefusesReservationsThatMakeNoSense) {
  EXPECT_EQ(Reserve({.key = Key(1)}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Reserve(TwoRanks(Key(1), 3)).code(), absl::StatusCode::kInvalidArgument)
      << "devices 3 and 4 of 4";
  Reservation twice = TwoRanks(Key(1));
  twice.slots[1].rank = Rank(0);
  EXPECT_EQ(Reserve(twice).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(table_.NumDevicesTaken(), 0);
}

TEST_F(AttemptTableTest, ARepeatedPrepareChangesNothing) {
  Prepare(Key(1));
  const auto again = table_.Reserve(TwoRanks(Key(1)), now_, effects_);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, ReserveResult::kRepeated);
  EXPECT_EQ(Reserve(TwoRanks(Key(1), 2)).code(), absl::StatusCode::kFailedPrecondition)
      << "the same attempt on other devices";
}

TEST_F(AttemptTableTest, DevicesComeBackWhenFilesAreBad) {
  ASSERT_TRUE(Reserve(TwoRanks(Key(1))).ok());
  table_.ReservationFailed(Key(1));
  EXPECT_EQ(table_.NumDevicesTaken(), 0);
  EXPECT_TRUE(Reserve(TwoRanks(Key(1))).ok()) << "the coordinator may try again";
}

TEST_F(AttemptTableTest, DevicesComeBackWhenNoCommitComes) {
  Prepare(Key(1));
  Advance(absl::Seconds(9));
  EXPECT_EQ(table_.Find(Key(1))->phase, AttemptPhase::kPrepared);
  Advance(absl::Seconds(1));
  EXPECT_EQ(table_.Find(Key(1))->phase, AttemptPhase::kEnded);
  EXPECT_EQ(table_.Find(Key(1))->end_reason, "no commit came in time");
  EXPECT_EQ(StateOf(Key(1), 0), RankState::kStopped);
  EXPECT_EQ(table_.NumDevicesTaken(), 0);
  EXPECT_EQ(ReasonOf(table_.Commit(Key(1), now_, effects_)), kReasonAttemptOver);
}

TEST_F(AttemptTableTest, AnAbortWhileFilesAreWrittenWins) {
  ASSERT_TRUE(Reserve(TwoRanks(Key(1))).ok());
  ASSERT_TRUE(table_.Abort(Key(1), now_, effects_).ok());
  EXPECT_EQ(table_.FilesReady(Key(1)).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(table_.NumDevicesTaken(), 0);
}

TEST_F(AttemptTableTest, ALostRankEndsTheOthersAtOnce) {
  Start(Key(1));
  ASSERT_TRUE(table_.StepDone(Key(1), Rank(1), 7, now_).ok());
  Killed(Key(1), 1);
  EXPECT_EQ(StateOf(Key(1), 1), RankState::kLost);
  EXPECT_THAT(TakeEffects(), ElementsAre(Effect(ReportRank{Key(1), Rank(1)}), Kill(Key(1), 0)));
  EXPECT_EQ(table_.Find(Key(1))->phase, AttemptPhase::kStopping);
  EXPECT_EQ(table_.Find(Key(1))->end_reason,
            "rank 1 on node node-0 was killed by signal 9 (Killed); its last step was 7");

  Signal(Key(1), 0);
  Killed(Key(1), 0);
  EXPECT_EQ(StateOf(Key(1), 0), RankState::kStopped) << "our doing, not a second cause";
  EXPECT_EQ(table_.Find(Key(1))->phase, AttemptPhase::kEnded);
  EXPECT_EQ(effects_.back(), CleanUp(Key(1)));
}

TEST_F(AttemptTableTest, ExitWithoutFinishingIsALoss) {
  Start(Key(1));
  End(Key(1), 0, {.exit_code = 0});
  EXPECT_EQ(StateOf(Key(1), 0), RankState::kLost);
  EXPECT_THAT(table_.Find(Key(1))->end_reason,
              HasSubstr("exited with code 0 without saying that it had finished"));
}

TEST_F(AttemptTableTest, WaitsForLastWords) {
  Start(Key(1));
  table_.ProcessEnded(Key(1), Rank(0), {.exit_code = 1}, now_, effects_);
  EXPECT_THAT(effects_, IsEmpty());
  ASSERT_TRUE(table_
                  .Failed(Key(1), Rank(0),
                          {.code = absl::StatusCode::kResourceExhausted, .message = "no memory"},
                          now_, effects_)
                  .ok());
  table_.StreamClosed(Key(1), Rank(0), now_, effects_);
  table_.LogClosed(Key(1), Rank(0), now_, effects_);
  EXPECT_EQ(StateOf(Key(1), 0), RankState::kFailed);
  EXPECT_THAT(table_.Find(Key(1))->end_reason, HasSubstr("failed: no memory"));
  EXPECT_THAT(effects_, Contains(Kill(Key(1), 1)));
}

TEST_F(AttemptTableTest, DoesNotWaitForLastWordsForEver) {
  Start(Key(1));
  table_.ProcessEnded(Key(1), Rank(0), {.exit_code = 1}, now_, effects_);
  Advance(kLastWordsTimeout - absl::Milliseconds(1));
  EXPECT_EQ(StateOf(Key(1), 0), RankState::kRunning);
  Advance(absl::Milliseconds(1));
  EXPECT_EQ(StateOf(Key(1), 0), RankState::kLost);
}

TEST_F(AttemptTableTest, TheCauseShowsBeforeItsEcho) {
  Start(Key(1));
  // Rank 0 sees its peer vanish before the agent sees the process end.
  ASSERT_TRUE(table_
                  .Failed(Key(1), Rank(0), {.message = "peer 1 is gone", .is_peer_lost = true},
                          now_, effects_)
                  .ok());
  EXPECT_THAT(TakeEffects(), ElementsAre(Effect(ReportRank{Key(1), Rank(0)})));
  End(Key(1), 0, {.exit_code = 1});
  EXPECT_EQ(table_.Find(Key(1))->phase, AttemptPhase::kRunning);
  Killed(Key(1), 1);
  EXPECT_EQ(table_.Find(Key(1))->phase, AttemptPhase::kEnded);
  EXPECT_EQ(table_.Find(Key(1))->end_reason,
            "rank 1 on node node-0 was killed by signal 9 (Killed); it had not finished a step");
}

TEST_F(AttemptTableTest, AnEchoWithoutCauseEndsTheAttemptLater) {
  Start(Key(1));
  ASSERT_TRUE(table_
                  .Failed(Key(1), Rank(0), {.message = "peer 2 is gone", .is_peer_lost = true},
                          now_, effects_)
                  .ok());
  End(Key(1), 0, {.exit_code = 1});
  TakeEffects();
  Advance(kEchoTimeout);
  EXPECT_THAT(effects_, Contains(Kill(Key(1), 1)));
  EXPECT_THAT(table_.Find(Key(1))->end_reason, HasSubstr("peer 2 is gone"));
}

// A rank is killed, its peer on another node tells of it at once, and the coordinator's stop comes
// before the process can be seen to have ended.
TEST_F(AttemptTableTest, WhatWeDidNotSendIsNotOurDoing) {
  struct Case {
    const char* what;
    std::vector<int> sent;
    ProcessExit exit;
    RankState state;
  };
  const Case cases[] = {
      {"ends when asked", {SIGTERM}, {.exit_code = 143}, RankState::kStopped},
      {"ends of being asked", {SIGTERM}, {.signal_number = SIGTERM}, RankState::kStopped},
      {"is killed by us", {SIGTERM, SIGKILL}, {.signal_number = SIGKILL}, RankState::kStopped},
      {"was killed before", {SIGTERM}, {.signal_number = SIGKILL}, RankState::kLost},
      {"crashed before", {SIGTERM}, {.signal_number = SIGSEGV}, RankState::kLost},
      {"ends of what looks like ours", {}, {.signal_number = SIGTERM}, RankState::kLost},
  };
  int64_t generation = 0;
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    const AttemptKey key = Key(++generation);
    Start(key);
    if (!c.sent.empty()) {
      ASSERT_TRUE(table_.Stop(key, absl::Seconds(5), "a peer is gone", now_, effects_).ok());
    }
    for (const int signal_number : c.sent) Signal(key, 1, signal_number);
    End(key, 1, c.exit);
    EXPECT_EQ(StateOf(key, 1), c.state);
    EXPECT_THAT(effects_, Contains(Effect(ReportRank{key, Rank(1)})));
    End(key, 0, {.exit_code = 143});
    EXPECT_EQ(table_.Find(key)->phase, AttemptPhase::kEnded);
  }
}

TEST_F(AttemptTableTest, ARankThatFailedMayEndByItself) {
  Start(Key(1));
  ASSERT_TRUE(table_.Failed(Key(1), Rank(0), {.message = "NaN"}, now_, effects_).ok());
  EXPECT_THAT(TakeEffects(), ElementsAre(Effect(ReportRank{Key(1), Rank(0)}), Kill(Key(1), 1)));
  Advance(kExitAfterFailed);
  EXPECT_THAT(TakeEffects(), ElementsAre(Kill(Key(1), 0))) << "but not for ever";
}

TEST_F(AttemptTableTest, AFinishedRankThatHangsIsKilled) {
  Start(Key(1));
  ASSERT_TRUE(table_.Finished(Key(1), Rank(0), {}, now_, effects_).ok());
  TakeEffects();
  for (int i = 0; i < 6; ++i) {
    KeepLease();
    EXPECT_THAT(TakeEffects(), IsEmpty());
    Advance(kExitAfterFinished / 6);
  }
  EXPECT_THAT(TakeEffects(), ElementsAre(Kill(Key(1), 0)));
  Signal(Key(1), 0);
  Killed(Key(1), 0);
  EXPECT_EQ(StateOf(Key(1), 0), RankState::kFinished) << "its last word stands";
  EXPECT_EQ(table_.Find(Key(1))->phase, AttemptPhase::kRunning);
}

TEST_F(AttemptTableTest, StopAsksThenKills) {
  Start(Key(1));
  ASSERT_TRUE(table_.Stop(Key(1), absl::Seconds(3), "cancelled", now_, effects_).ok());
  EXPECT_THAT(TakeEffects(), ElementsAre(Terminate(Key(1), 0), Terminate(Key(1), 1)));
  Signal(Key(1), 0, SIGTERM);
  Signal(Key(1), 1, SIGTERM);
  End(Key(1), 0, {.signal_number = SIGTERM});
  EXPECT_EQ(StateOf(Key(1), 0), RankState::kStopped);
  TakeEffects();
  Advance(absl::Seconds(2));
  EXPECT_THAT(effects_, IsEmpty());
  Advance(absl::Seconds(1));
  EXPECT_THAT(TakeEffects(), ElementsAre(Kill(Key(1), 1)));
  Killed(Key(1), 1);
  EXPECT_EQ(table_.Find(Key(1))->phase, AttemptPhase::kEnded);
  EXPECT_EQ(table_.Find(Key(1))->end_reason, "cancelled");
}

TEST_F(AttemptTableTest, AStopOfWhatIsNotHereForbidsIt) {
  const absl::Status status = table_.Stop(Key(1), absl::ZeroDuration(), "", now_, effects_);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(Reserve(TwoRanks(Key(1)))), kReasonAttemptOver);
}

TEST_F(AttemptTableTest, WhatAStoppedRankSaysIsNoFailure) {
  Start(Key(1));
  ASSERT_TRUE(table_.Stop(Key(1), absl::Seconds(3), "cancelled", now_, effects_).ok());
  Signal(Key(1), 0);
  EXPECT_TRUE(table_.Failed(Key(1), Rank(0), {.message = "interrupted"}, now_, effects_).ok());
  End(Key(1), 0, {.exit_code = 1});
  EXPECT_EQ(StateOf(Key(1), 0), RankState::kStopped);
}

TEST_F(AttemptTableTest, LosingTheLeaseKillsEverything) {
  Start(Key(1));
  ASSERT_TRUE(Reserve(TwoRanks(Key(1, "job-b"), 2)).ok());
  Advance(kLease - absl::Milliseconds(1));
  EXPECT_THAT(effects_, Not(Contains(Kill(Key(1), 0))));
  Advance(absl::Milliseconds(1));
  EXPECT_THAT(effects_, Contains(Kill(Key(1), 0)));
  EXPECT_THAT(effects_, Contains(Kill(Key(1), 1)));
  EXPECT_EQ(table_.Find(Key(1))->end_reason,
            "the coordinator was silent for 15s, which is the lease");
  EXPECT_EQ(table_.Find(Key(1, "job-b"))->phase, AttemptPhase::kEnded);
}

TEST_F(AttemptTableTest, TheLeaseCountsFromTheSendingOfWhatWasAnswered) {
  Start(Key(1));
  now_ = absl::Seconds(10);
  table_.RenewLease(absl::Seconds(4), kLease);  // The answer took six seconds.
  table_.RenewLease(absl::Seconds(2), kLease);  // An older answer comes late.
  TakeEffects();
  now_ = absl::ZeroDuration();
  Advance(absl::Seconds(19) - absl::Milliseconds(1));
  EXPECT_THAT(effects_, IsEmpty());
  Advance(absl::Milliseconds(1));
  EXPECT_THAT(effects_, Contains(Kill(Key(1), 0)));
}

TEST_F(AttemptTableTest, NothingStartsWithoutALease) {
  Prepare(Key(1));
  now_ += kLease;
  EXPECT_EQ(ReasonOf(table_.Commit(Key(1), now_, effects_)), kReasonNoLease);
  EXPECT_EQ(ReasonOf(Reserve(TwoRanks(Key(1, "job-b"), 2))), kReasonNoLease);
  AttemptTable fresh(NodeId("node-1"), 4);
  EXPECT_EQ(ReasonOf(fresh.Reserve(TwoRanks(Key(1)), now_, effects_).status()), kReasonNoLease);
}

TEST_F(AttemptTableTest, ANewerGenerationReplacesTheOlder) {
  Start(Key(1));
  const absl::Status busy = Reserve(TwoRanks(Key(2)));
  EXPECT_EQ(busy.code(), absl::StatusCode::kUnavailable) << busy;
  EXPECT_THAT(TakeEffects(), ElementsAre(Kill(Key(1), 0), Kill(Key(1), 1)));
  for (const int rank : {0, 1}) {
    Signal(Key(1), rank);
    Killed(Key(1), rank);
  }
  EXPECT_TRUE(Reserve(TwoRanks(Key(2))).ok());
  EXPECT_EQ(StateOf(Key(1), 0), RankState::kStopped);
}

TEST_F(AttemptTableTest, ARankThatCannotStartEndsTheAttempt) {
  Prepare(Key(1));
  ASSERT_TRUE(table_.Commit(Key(1), now_, effects_).ok());
  table_.BeginStart(Key(1), Rank(0));
  table_.NotStarted(Key(1), Rank(0), absl::NotFoundError("cannot start autosp-rank"), now_,
                    effects_);
  EXPECT_FALSE(table_.ShouldStart(Key(1), Rank(1)));
  EXPECT_EQ(StateOf(Key(1), 0), RankState::kFailed);
  EXPECT_EQ(StateOf(Key(1), 1), RankState::kStopped);
  EXPECT_EQ(table_.Find(Key(1))->phase, AttemptPhase::kEnded);
  EXPECT_THAT(table_.Find(Key(1))->end_reason, HasSubstr("cannot start autosp-rank"));
}

// Its devices are free only when no process can come any more.
TEST_F(AttemptTableTest, ARankThatIsBeingStartedIsKilledWhenThereIsSomething) {
  Prepare(Key(1));
  ASSERT_TRUE(table_.Commit(Key(1), now_, effects_).ok());
  table_.BeginStart(Key(1), Rank(0));
  EXPECT_FALSE(table_.ShouldStart(Key(1), Rank(0)));
  effects_.clear();
  ASSERT_TRUE(table_.Stop(Key(1), absl::Seconds(5), "enough", now_, effects_).ok());
  EXPECT_EQ(StateOf(Key(1), 1), RankState::kStopped) << "it has no process and gets none";
  EXPECT_EQ(table_.Find(Key(1))->phase, AttemptPhase::kStopping);
  EXPECT_EQ(table_.NumDevicesTaken(), 2);

  TakeEffects();
  table_.Started(Key(1), Rank(0), 100, now_, effects_);
  EXPECT_THAT(TakeEffects(), Contains(Kill(Key(1), 0)));
  Signal(Key(1), 0);
  Killed(Key(1), 0);
  EXPECT_EQ(StateOf(Key(1), 0), RankState::kStopped);
  EXPECT_EQ(table_.Find(Key(1))->phase, AttemptPhase::kEnded);
  EXPECT_EQ(table_.NumDevicesTaken(), 0);
}

TEST_F(AttemptTableTest, AnUnwantedStartThatFailsIsNoFailure) {
  Prepare(Key(1));
  ASSERT_TRUE(table_.Commit(Key(1), now_, effects_).ok());
  table_.BeginStart(Key(1), Rank(1));
  ASSERT_TRUE(table_.Stop(Key(1), absl::Seconds(5), "enough", now_, effects_).ok());
  table_.NotStarted(Key(1), Rank(1), absl::NotFoundError("cannot start"), now_, effects_);
  EXPECT_EQ(StateOf(Key(1), 1), RankState::kStopped);
  EXPECT_EQ(table_.Find(Key(1))->phase, AttemptPhase::kEnded);
  EXPECT_EQ(table_.Find(Key(1))->end_reason, "enough");
}

TEST_F(AttemptTableTest, OnlyTheRealRankMaySpeak) {
  Prepare(Key(1));
  ASSERT_TRUE(table_.Commit(Key(1), now_, effects_).ok());
  table_.BeginStart(Key(1), Rank(0));
  table_.Started(Key(1), Rank(0), 100, now_, effects_);
  EXPECT_EQ(table_.Hello(Key(1), Rank(0), 999, now_, effects_).code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(table_.Hello(Key(1), Rank(7), 100, now_, effects_).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(table_.StepDone(Key(1), Rank(0), 1, now_).code(), absl::StatusCode::kFailedPrecondition)
      << "before its hello";
  ASSERT_TRUE(table_.Hello(Key(1), Rank(0), 100, now_, effects_).ok());
  ASSERT_TRUE(table_.StepDone(Key(1), Rank(0), 1, now_).ok());
  EXPECT_EQ(table_.StepDone(Key(1), Rank(0), 1, now_).code(), absl::StatusCode::kInvalidArgument)
      << "the same step again";
}

TEST_F(AttemptTableTest, StopListedLeavesStrangersAlone) {
  Start(Key(2));
  table_.StopListed(Key(1), absl::ZeroDuration(), "", now_, effects_);
  table_.StopListed(Key(2, "job-b"), absl::ZeroDuration(), "", now_, effects_);
  EXPECT_THAT(effects_, IsEmpty());
  table_.Release(Key(2), effects_);
  EXPECT_NE(table_.Find(Key(2)), nullptr) << "a running attempt is not forgotten";
}

TEST_F(AttemptTableTest, RemembersABoundedNumberOfJobs) {
  for (size_t i = 0; i < kMaxRememberedJobs + 10; ++i) {
    ASSERT_TRUE(table_.Abort(Key(3, absl::StrCat("job-", i).c_str()), now_, effects_).ok());
  }
  EXPECT_EQ(ReasonOf(table_.Abort(Key(2, "job-100"), now_, effects_)), kReasonStaleGeneration);
  EXPECT_TRUE(table_.Abort(Key(2, "job-0"), now_, effects_).ok()) << "the oldest is forgotten";
}

TEST(AttemptEdgesTest, APairThatIsNotListedIsRefused) {
  EXPECT_EQ(*NextPhase(AttemptPhase::kPrepared, AttemptEvent::kCommitted), AttemptPhase::kRunning);
  EXPECT_EQ(NextPhase(AttemptPhase::kEnded, AttemptEvent::kCommitted).status().message(),
            "commit is not allowed while ended");
  EXPECT_EQ(NextRankState(RankState::kLost, RankEvent::kFinished).status().message(),
            "\"finished\" is not allowed for a rank that is lost");
}

}  // namespace
}  // namespace autosp::agent
