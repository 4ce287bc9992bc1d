// The real agent with scripted ranks: attempts from prepare to end, and everything that can go
// wrong with a process on the way.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>

#include <filesystem>
#include <set>
#include <stdexcept>
#include <thread>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/clock.h"
#include "common/error_info.h"
#include "common/file.h"
#include "common/tcp.h"
#include "tests/worker/agent/agent_process_fixture.h"
#include "tests/worker/agent/fake_coordinator.h"
#include "worker/agent/agent_errors.h"
#include "worker/agent/process_identity.h"

namespace autosp::agent {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Seen = FakeCoordinator::Seen;

TEST_F(AgentProcessTest, RegistersWithWhatItHas) {
  StartAgent();
  const v1::RegisterAgentRequest seen = coordinator_.Get().registrations.front();
  EXPECT_EQ(seen.node_id(), "node-0");
  EXPECT_EQ(seen.num_devices(), 4);
  EXPECT_THAT(seen.agent_address(), ::testing::StartsWith("127.0.0.1:"));
  EXPECT_GT(seen.device_memory_bytes(), 0);
  EXPECT_GT(seen.agent_start_ms(), 0);
  EXPECT_EQ(seen.attempts_size(), 0);
}

// It is ready when the coordinator knows it; what restarts it asks for the process alone.
TEST_F(AgentProcessTest, IsServingWhileTheCoordinatorKnowsIt) {
  StartAgent();
  EXPECT_TRUE(agent_->IsServing(""));
  EXPECT_TRUE(agent_->IsServing("process"));
  EXPECT_FALSE(agent_->IsServing("another")) << "there is no such service";

  coordinator_.Change([](auto& answers) { answers.refuse_registration_reason = "NODE_UNKNOWN"; });
  coordinator_.Stop();
  coordinator_.Start();
  const auto becomes = [this](bool is_serving) {
    const absl::Time give_up = absl::Now() + absl::Seconds(10);
    while (agent_->IsServing("") != is_serving && absl::Now() < give_up) {
      absl::SleepFor(absl::Milliseconds(20));
    }
    return agent_->IsServing("") == is_serving;
  };
  EXPECT_TRUE(becomes(false)) << "the coordinator has forgotten it";
  EXPECT_TRUE(agent_->IsServing("process"));

  coordinator_.Change([](auto& answers) { answers.refuse_registration_reason = ""; });
  EXPECT_TRUE(becomes(true));
}

TEST_F(AgentProcessTest, LogsOnceWhyTheCoordinatorRefusesItFromTheStart) {
  const auto refuse = [this](const std::string& reason) {
    coordinator_.Change([&](auto& answers) { answers.refuse_registration_reason = reason; });
  };
  const auto log = [this] { return ReadFile(folder_ + "/agent.log", 1 << 20).value_or(""); };
  const auto wait_for_line = [&](const std::string& text) {
    for (int i = 0; i < 500 && !absl::StrContains(log(), text); ++i) {
      Clock::Real().Sleep(absl::Milliseconds(10));
    }
    EXPECT_THAT(log(), HasSubstr(text));
  };
  refuse("NODE_UNKNOWN");
  std::thread starter([this] {  // Waits until the agent has registered.
    auto agent = AgentProcess::Start(coordinator_, folder_);
    EXPECT_TRUE(agent.ok()) << agent.status();
    if (agent.ok()) agent_ = *std::move(agent);
  });
  wait_for_line("is not wanted: NODE_UNKNOWN");
  refuse("NODE_FULL");
  wait_for_line("is not wanted: NODE_FULL");
  Clock::Real().Sleep(absl::Milliseconds(500));  // It is refused again meanwhile.
  const std::vector<std::string> parts = absl::StrSplit(log(), "is not wanted: NODE_FULL");
  EXPECT_EQ(parts.size(), 2u) << log();
  refuse("");
  wait_for_line(" answers");
  starter.join();
}

// Nobody listens on port 9, so that a link through the proxy would find nobody.
TEST_F(AgentProcessTest, ReachesTheCoordinatorPastAProxyOfTheEnvironment) {
  StartAgent({}, {"http_proxy=http://127.0.0.1:9", "no_proxy="});
  EXPECT_TRUE(coordinator_.WaitUntil([](const Seen& seen) { return seen.num_heartbeats > 0; }));
}

TEST_F(AgentProcessTest, RunsAnAttemptToItsEnd) {
  StartAgent();
  StartRanks("* hello\n* log training\n* steps 5 20\n* finish\n");
  WaitForState(0, v1::RANK_STATE_FINISHED);
  WaitForState(1, v1::RANK_STATE_FINISHED);
  WaitForPhase(v1::AttemptStatus::PHASE_ENDED);
  WaitForSteps(1, 5);
  const Seen seen = coordinator_.Get();
  const auto& steps = seen.steps.at(kJob).at(0);
  ASSERT_EQ(steps.size(), 5);
  EXPECT_EQ(steps[4].step(), 5);
  EXPECT_DOUBLE_EQ(steps[4].loss(), 1.0);
  EXPECT_EQ(steps[4].collectives(0).bytes_received(), 4096);
  const v1::AttemptStatus& attempt = *seen.Attempt(kJob);
  EXPECT_EQ(attempt.end_reason(), "");
  EXPECT_EQ(attempt.ranks(0).last_step(), 5);
  EXPECT_EQ(attempt.ranks(0).exit().exit_code(), 0);
  EXPECT_THAT(attempt.ranks(0).outputs(0).path(), HasSubstr("weights.safetensors"));
  EXPECT_THAT(*agent_->ReadLog(kJob, 1), HasSubstr("training\nstep 1\nstep 2\n"));

  coordinator_.Change([](auto& answers) { answers.release_attempts = {Ref()}; });
  EXPECT_TRUE(coordinator_.WaitUntil([](const Seen& s) { return s.Attempt(kJob) == nullptr; }));
  EXPECT_TRUE(agent_->ReadLog(kJob, 1).ok()) << "logs outlive the release";
}

TEST_F(AgentProcessTest, NothingStartsBeforeTheCommit) {
  StartAgent();
  ASSERT_TRUE(agent_->Prepare(MakePrepare(folder_, kJob, 2, "* hello\n* hang\n")).ok());
  WaitForPhase(v1::AttemptStatus::PHASE_PREPARED);
  EXPECT_EQ(coordinator_.Get().Attempt(kJob)->ranks(0).pid(), 0);
  ASSERT_TRUE(agent_->Abort(kJob).ok());
  WaitForPhase(v1::AttemptStatus::PHASE_ENDED);
  EXPECT_EQ(GetErrorInfo(agent_->Commit(kJob)).reason, kReasonAttemptOver);
}

TEST_F(AgentProcessTest, AKilledRankIsNamedWithItsLastStepAndLog) {
  StartAgent();
  StartRanks("* hello\n1 log about to hang\n* steps 3 10\n* hang\n");
  WaitForSteps(0, 3);
  WaitForSteps(1, 3);
  EXPECT_TRUE(coordinator_.WaitUntil([](const Seen& s) {
    const auto& ranks = s.Attempt(kJob)->ranks();
    return absl::c_any_of(ranks, [](const v1::RankStatus& rank) {
      return rank.rank() == 1 && absl::c_linear_search(rank.log_lines(), "about to hang");
    });
  })) << "the log is told while the rank runs: its agent may die with it";
  const std::vector<int64_t> pids = Pids();
  const absl::Duration start = Clock::Real().Steady();
  kill(static_cast<pid_t>(pids[1]), SIGKILL);
  WaitForState(1, v1::RANK_STATE_LOST);
  WaitForState(0, v1::RANK_STATE_STOPPED);
  EXPECT_LT(Clock::Real().Steady() - start, absl::Seconds(3));
  const v1::RankStatus lost = StatusOf(1);
  EXPECT_EQ(lost.exit().signal_number(), SIGKILL);
  EXPECT_EQ(lost.last_step(), 3);
  EXPECT_THAT(lost.exit().log_lines(), Contains("about to hang"));
  EXPECT_EQ(lost.log_lines_size(), 0) << "said once";
  WaitForPhase(v1::AttemptStatus::PHASE_ENDED);
  EXPECT_EQ(EndReason(),
            "rank 1 on node node-0 was killed by signal 9 (Killed); its last step was 3");
  const Seen seen = coordinator_.Get();
  EXPECT_EQ(seen.Attempt(kJob)->ranks(0).rank(), 1) << "the cause comes first";
  EXPECT_TRUE(AreGone(pids, absl::Seconds(1)));
}

TEST_F(AgentProcessTest, ARankThatFailsSaysWhy) {
  StartAgent();
  StartRanks("* hello\n* steps 1 10\n0 fail 8 out of device memory\n0 exit 1\n1 hang\n");
  WaitForState(0, v1::RANK_STATE_FAILED);
  WaitForState(1, v1::RANK_STATE_STOPPED);
  WaitForPhase(v1::AttemptStatus::PHASE_ENDED);
  const Seen seen = coordinator_.Get();
  const v1::RankStatus& failed = seen.Attempt(kJob)->ranks(0);
  EXPECT_EQ(failed.exit().failure().status_code(), 8);
  EXPECT_EQ(failed.exit().failure().message(), "out of device memory");
  EXPECT_THAT(failed.exit().failure().instruction(), HasSubstr("aten.linear"));
  EXPECT_EQ(failed.exit().exit_code(), 1);
  EXPECT_THAT(EndReason(), HasSubstr("failed: out of device memory"));
}

TEST_F(AgentProcessTest, TheCauseIsNotItsEcho) {
  StartAgent();
  StartRanks(
      "* hello\n* steps 1 10\n0 steps 1 300\n0 fail_echo 14 peer 1 is gone\n0 exit 1\n1 hang\n");
  WaitForSteps(1, 1);
  WaitForState(0, v1::RANK_STATE_FAILED);
  kill(static_cast<pid_t>(Pids()[1]), SIGABRT);
  WaitForState(1, v1::RANK_STATE_LOST);
  WaitForPhase(v1::AttemptStatus::PHASE_ENDED);
  EXPECT_THAT(EndReason(), HasSubstr("rank 1 on node node-0 was killed by signal 6"));
}

TEST_F(AgentProcessTest, NoRankOutlivesItsAgent) {
  StartAgent();
  StartRanks("* hello\n* ignore_term\n* steps 1 10\n* hang\n");
  WaitForSteps(0, 1);
  WaitForSteps(1, 1);
  const std::vector<int64_t> pids = Pids();
  EXPECT_FALSE(AreGone(pids, absl::ZeroDuration()));
  kill(agent_->process().pid(), SIGKILL);
  EXPECT_TRUE(AreGone(pids, absl::Seconds(5)));
}

TEST_F(AgentProcessTest, StopAsksFirstThenKills) {
  StartAgent();
  StartRanks("* hello\n1 ignore_term\n* steps 1 10\n* hang\n");
  WaitForSteps(0, 1);
  WaitForSteps(1, 1);
  const std::vector<int64_t> pids = Pids();
  const absl::Duration start = Clock::Real().Steady();
  ASSERT_TRUE(agent_->StopAttempt(kJob, absl::Milliseconds(700)).ok());
  WaitForPhase(v1::AttemptStatus::PHASE_ENDED);
  EXPECT_GE(Clock::Real().Steady() - start, absl::Milliseconds(700));
  WaitForState(0, v1::RANK_STATE_STOPPED);
  EXPECT_EQ(StatusOf(0).exit().signal_number(), SIGTERM);
  EXPECT_EQ(StatusOf(1).exit().signal_number(), SIGKILL);
  EXPECT_EQ(EndReason(), "cancelled by the test");
  EXPECT_TRUE(AreGone(pids, absl::Seconds(1)));
}

TEST_F(AgentProcessTest, StopsWhatTheCoordinatorLists) {
  StartAgent();
  StartRanks("* hello\n* steps 1 10\n* hang\n");
  WaitForSteps(0, 1);
  coordinator_.Change([](auto& answers) { answers.stop_attempts = {Ref()}; });
  WaitForPhase(v1::AttemptStatus::PHASE_ENDED);
  EXPECT_EQ(EndReason(), "the coordinator has no use for it");
}

TEST_F(AgentProcessTest, ASilentCoordinatorCostsTheLease) {
  StartAgent({"--lease-seconds=4"});
  StartRanks("* hello\n* steps 1 10\n* hang\n");
  WaitForSteps(0, 1);
  WaitForSteps(1, 1);
  const std::vector<int64_t> pids = Pids();
  coordinator_.Stop();
  EXPECT_FALSE(AreGone(pids, absl::Seconds(2))) << "ranks run on for the lease";
  EXPECT_TRUE(AreGone(pids, absl::Seconds(5)));

  coordinator_.Start();
  WaitForPhase(v1::AttemptStatus::PHASE_ENDED);
  EXPECT_EQ(EndReason(), "the coordinator was silent for 4s, which is the lease");
  const Seen seen = coordinator_.Get();
  ASSERT_EQ(seen.registrations.size(), 2);
  const v1::AttemptStatus& attempt = seen.registrations[1].attempts(0);
  EXPECT_EQ(attempt.phase(), v1::AttemptStatus::PHASE_RUNNING) << "its reports are still waiting";
  EXPECT_EQ(attempt.ranks(1).state(), v1::RANK_STATE_STOPPED);
}

TEST_F(AgentProcessTest, AttachesAgainWithinTheLease) {
  StartAgent({"--lease-seconds=14"});
  StartRanks("* hello\n* steps 1000 20\n");
  WaitForSteps(0, 3);
  const std::vector<int64_t> pids = Pids();
  coordinator_.Stop();
  const size_t steps_before = coordinator_.Get().steps[kJob][0].size();
  Clock::Real().Sleep(absl::Milliseconds(500));
  coordinator_.Start();
  ASSERT_TRUE(coordinator_.WaitUntil([](const Seen& s) { return s.registrations.size() == 2; }));
  const Seen seen = coordinator_.Get();
  EXPECT_EQ(seen.registrations[0].agent_instance_id(), seen.registrations[1].agent_instance_id());
  ASSERT_EQ(seen.registrations[1].attempts_size(), 1);
  const v1::AttemptStatus& attempt = seen.registrations[1].attempts(0);
  EXPECT_EQ(attempt.phase(), v1::AttemptStatus::PHASE_RUNNING);
  EXPECT_EQ(attempt.ranks(0).pid(), pids[0]);
  EXPECT_EQ(attempt.ranks(0).state(), v1::RANK_STATE_RUNNING);
  EXPECT_GT(attempt.ranks(0).last_step(), static_cast<int64_t>(steps_before));
  // What ranks reported meanwhile has been kept without a gap. A report whose answer was lost comes
  // twice.
  WaitForSteps(0, steps_before + 20);
  std::set<int64_t> steps;
  FakeCoordinator::Seen reported = coordinator_.Get();
  for (const v1::StepReport& step : reported.steps[kJob][0]) steps.insert(step.step());
  EXPECT_GE(steps.size(), steps_before);
  EXPECT_EQ(*steps.rbegin(), static_cast<int64_t>(steps.size()));
  EXPECT_FALSE(AreGone(pids, absl::ZeroDuration()));
}

TEST_F(AgentProcessTest, SendsReportsAgainUntilTheyAreAnswered) {
  StartAgent();
  coordinator_.Change([](auto& answers) { answers.refuse_reports = true; });
  StartRanks("* hello\n* steps 3 5\n* finish\n");
  EXPECT_TRUE(coordinator_.WaitUntil([](const Seen& s) {
    const v1::AttemptStatus* attempt = s.Attempt(kJob);
    return s.num_report_calls > 2 && attempt != nullptr &&
           absl::c_all_of(attempt->ranks(), [](const v1::RankStatus& rank) {
             return rank.has_exit() && rank.state() == v1::RANK_STATE_FINISHED;
           });
  }));
  EXPECT_TRUE(coordinator_.Get().steps.empty());
  EXPECT_EQ(coordinator_.Get().Attempt(kJob)->phase(), v1::AttemptStatus::PHASE_RUNNING)
      << "the end must not overtake the steps";
  coordinator_.Change([](auto& answers) { answers.refuse_reports = false; });
  WaitForPhase(v1::AttemptStatus::PHASE_ENDED);
  EXPECT_EQ(coordinator_.Get().steps[kJob][0].size(), 3);
  EXPECT_EQ(coordinator_.Get().statuses[kJob][0].state(), v1::RANK_STATE_FINISHED);
}

TEST_F(AgentProcessTest, RefusesStaleGenerationsByBothNumbers) {
  StartAgent();
  auto request = MakePrepare(folder_, kJob, 2, "* hello\n* hang\n");
  request.mutable_attempt()->mutable_attempt()->set_generation(4);
  ASSERT_TRUE(agent_->Prepare(request).ok());
  request.mutable_attempt()->mutable_attempt()->set_generation(2);
  for (const absl::Status& status :
       {agent_->Prepare(request), agent_->Commit(kJob, 2), agent_->Abort(kJob, 2),
        agent_->StopAttempt(kJob, absl::Seconds(1), 2)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    const ErrorInfo info = GetErrorInfo(status);
    EXPECT_EQ(info.reason, kReasonStaleGeneration);
    EXPECT_EQ(info.metadata.at("generation"), "2");
    EXPECT_EQ(info.metadata.at("newest_generation"), "4");
    EXPECT_THAT(std::string(status.message()), HasSubstr("generation 2"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("generation 4"));
  }
}

TEST_F(AgentProcessTest, ARankOfAnotherGenerationIsTurnedAway) {
  StartAgent();
  StartRanks("0 hello\n1 hello_as 7\n1 hello_as 1\n* hang\n");
  WaitForState(0, v1::RANK_STATE_RUNNING);
  // The second hello of rank 1 is the right one; its call is open and closed.
  WaitForState(1, v1::RANK_STATE_RUNNING);
  WaitForLog(1, "call ended: 5 rank 1 of job job-test generation 7 does not run");
}

TEST_F(AgentProcessTest, RefusesWhatCannotRun) {
  StartAgent();
  const auto good = MakePrepare(folder_, kJob, 2, "* hello\n");
  auto request = good;
  request.set_node_id("node-9");
  EXPECT_EQ(GetErrorInfo(agent_->Prepare(request)).reason, kReasonWrongNode);

  request = good;
  request.mutable_attempt()->set_program_digest(std::string(64, '0'));
  EXPECT_EQ(agent_->Prepare(request).code(), absl::StatusCode::kDataLoss);

  request = good;
  v1::FileRef& file = *request.mutable_attempt()->add_files();
  file.set_role(v1::FileRef::ROLE_ARCHIVE);
  file.set_uri("file://" + folder_ + "/model.pt2");
  file.set_size_bytes(4);
  EXPECT_THAT(std::string(agent_->Prepare(request).message()), HasSubstr("model.pt2"));
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/model.pt2", "12345").ok());
  EXPECT_THAT(std::string(agent_->Prepare(request).message()),
              HasSubstr("has 5 bytes; it had 4 when"));

  request = good;
  request.mutable_attempt()->set_output_directory(folder_ + "/model.pt2/out");
  EXPECT_THAT(std::string(agent_->Prepare(request).message()), HasSubstr("output folder"));

  request = good;
  request.mutable_ranks(1)->set_device_index(4);
  EXPECT_THAT(std::string(agent_->Prepare(request).message()), HasSubstr("device 4"));

  EXPECT_TRUE(agent_->Prepare(good).ok()) << "no refusal has kept a device";
  EXPECT_EQ(GetErrorInfo(agent_->Prepare(MakePrepare(folder_, "job-b", 3, ""))).reason,
            kReasonDeviceTaken);
}

TEST_F(AgentProcessTest, AMissingRankProgramIsKnownBeforeTheStart) {
  StartAgent({"--rank-binary=/nowhere/autosp-rank"});
  const absl::Status status = agent_->Prepare(MakePrepare(folder_, kJob, 2, ""));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot execute /nowhere/autosp-rank"));
}

TEST_F(AgentProcessTest, FollowsALogToItsEnd) {
  StartAgent();
  StartRanks("* hello\n* steps 20 50\n* finish\n");
  WaitForLog(0, "step 2\n");
  const auto followed = agent_->ReadLog(kJob, 0, 1, true);
  ASSERT_TRUE(followed.ok()) << followed.status();
  EXPECT_THAT(*followed, HasSubstr("step 20\ncall ended: 0"));
  EXPECT_THAT(*followed, ::testing::Not(HasSubstr("step 1\n")));
  EXPECT_EQ(*agent_->ReadLog(kJob, 0, 2), "step 20\ncall ended: 0 \n");
  EXPECT_EQ(agent_->ReadLog(kJob, 7).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(AgentProcessTest, ARequestToEndTakesTheRanksAlong) {
  StartAgent();
  StartRanks("* hello\n1 ignore_term\n* steps 1 10\n* hang\n");
  WaitForSteps(1, 1);
  const std::vector<int64_t> pids = Pids();
  EXPECT_FALSE(coordinator_.Get().last_heartbeat.is_ending());
  kill(agent_->process().pid(), SIGTERM);
  const auto is_said = [](const Seen& seen) { return seen.last_heartbeat.is_ending(); };
  EXPECT_TRUE(coordinator_.WaitUntil(is_said)) << "while ranks are still there";
  const auto exit = agent_->process().WaitFor(absl::Seconds(10));
  ASSERT_TRUE(exit.has_value()) << "it asks, waits and kills within seconds";
  EXPECT_TRUE(exit->ok()) << exit->ToString();
  EXPECT_TRUE(AreGone(pids, absl::ZeroDuration()));
  EXPECT_EQ(EndReason(), "the agent received signal 15");
  EXPECT_EQ(StatusOf(0).state(), v1::RANK_STATE_STOPPED);
}

TEST_F(AgentProcessTest, CleansUpAfterAnEarlierLife) {
  StartAgent();
  StartRanks("* hello\n0 shm ring\n* steps 1 10\n* hang\n");
  WaitForSteps(0, 1);
  const std::string segment = "/dev/shm/autosp-job-test-1-ring";
  const std::string stranger = "/dev/shm/autosp-job-test-12-ring";
  ASSERT_TRUE(WriteFileAtomically(stranger, "x").ok());
  ASSERT_TRUE(FileExists(segment));
  kill(agent_->process().pid(), SIGKILL);
  agent_->process().Wait();
  EXPECT_TRUE(FileExists(segment)) << "nobody was left to remove it";
  StartAgent();
  EXPECT_FALSE(FileExists(segment));
  EXPECT_TRUE(FileExists(stranger)) << "generation 12 is not generation 1";
  EXPECT_TRUE(RemoveFile(stranger).ok());
  EXPECT_EQ(coordinator_.Get().registrations.back().attempts_size(), 0);
}

TEST_F(AgentProcessTest, TheEndOfAnAttemptRemovesItsSharedMemory) {
  StartAgent();
  StartRanks("* hello\n0 shm ring\n* steps 1 10\n1 exit 3\n* hang\n");
  WaitForPhase(v1::AttemptStatus::PHASE_ENDED);
  EXPECT_FALSE(FileExists("/dev/shm/autosp-job-test-1-ring"));
}

TEST_F(AgentProcessTest, OneAgentPerStateFolder) {
  StartAgent();
  SubprocessOptions options;
  options.argv = {std::getenv("AUTOSP_AGENT"), "--coordinator=127.0.0.1:1", "--state-dir",
                  folder_ + "/state"};
  options.output = SubprocessOptions::Output::kFile;
  options.output_path = folder_ + "/second.log";
  auto second = Subprocess::Start(options);
  ASSERT_TRUE(second.ok()) << second.status();
  const auto exit = second->WaitFor(absl::Seconds(10));
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->code, 1);
  EXPECT_THAT(*ReadFile(folder_ + "/second.log", 1 << 20), HasSubstr("in use by another agent"));
}

TEST_F(AgentProcessTest, EndsWhenANewerAgentHasItsPlace) {
  StartAgent();
  coordinator_.Stop();
  coordinator_.Change(
      [](auto& answers) { answers.refuse_registration_reason = std::string(kReasonStaleAgent); });
  coordinator_.Start();
  EXPECT_TRUE(agent_->process().WaitFor(absl::Seconds(10)).has_value());
}

// A prepare of rank 1 of two; the other one is on another node.
v1::PrepareRequest PrepareOnTwoNodes(const std::string& folder, const std::string& script) {
  v1::PrepareRequest request = MakePrepare(folder, kJob, 2, script);
  request.mutable_ranks()->RemoveLast();
  request.mutable_ranks(0)->set_rank(1);
  request.mutable_attempt()->set_node_of_rank(0, "another-node");
  return request;
}

TEST_F(AgentProcessTest, RanksOnSeveralNodesGetTheirPortAndTheirPeers) {
  StartAgent();
  const auto request = PrepareOnTwoNodes(folder_, "* hello\n* peers\n* accept\n* hang\n");
  const auto answer = agent_->PrepareForAnswer(request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_EQ(answer->rank_addresses_size(), 1);
  EXPECT_EQ(answer->rank_addresses(0).rank(), 1);
  const std::string address = answer->rank_addresses(0).address();
  EXPECT_EQ(agent_->PrepareForAnswer(request)->rank_addresses(0).address(), address);
  // It is open before the rank exists.
  const auto early = BeginConnectTcp(*ParseHostPort(address));
  ASSERT_TRUE(early.ok()) << early.status();
  ASSERT_TRUE(agent_->Commit(kJob, 1, {"10.0.0.1:7000", address}, "the secret").ok());
  WaitForLog(1, "accepted");
  const std::string log = agent_->ReadLog(kJob, 1).value();
  EXPECT_THAT(log, HasSubstr("\"10.0.0.1:7000\""));
  EXPECT_THAT(log, HasSubstr(address));
  EXPECT_THAT(log, HasSubstr("the secret"));
  EXPECT_THAT(agent_->LogText(), Not(HasSubstr("the secret")));
  // Nobody answers for a rank that has died.
  kill(static_cast<pid_t>(StatusOf(1).pid()), SIGKILL);
  WaitForPhase(v1::AttemptStatus::PHASE_ENDED);
  const auto late = BeginConnectTcp(*ParseHostPort(address));
  ASSERT_TRUE(late.ok());
  pollfd query = {.fd = late->get(), .events = POLLOUT, .revents = 0};
  ASSERT_EQ(poll(&query, 1, 5000), 1);
  EXPECT_TRUE(query.revents & POLLERR) << "refused";
}

TEST_F(AgentProcessTest, AnAbortedAttemptGivesItsPortsBack) {
  StartAgent();
  const auto answer = agent_->PrepareForAnswer(PrepareOnTwoNodes(folder_, ""));
  ASSERT_TRUE(answer.ok()) << answer.status();
  const HostPort address = *ParseHostPort(answer->rank_addresses(0).address());
  EXPECT_FALSE(ListenTcp(address.host, {.first = address.port, .last = address.port}).ok());
  ASSERT_TRUE(agent_->Abort(kJob).ok());
  EXPECT_TRUE(ListenTcp(address.host, {.first = address.port, .last = address.port}).ok());
}

TEST_F(AgentProcessTest, ACommitWithAddressesNeedsTheSecret) {
  StartAgent();
  ASSERT_TRUE(agent_->Prepare(PrepareOnTwoNodes(folder_, "* hello\n* hang\n")).ok());
  const absl::Status status = agent_->Commit(kJob, 1, {"a:1", "b:1"}, "");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("secret"));
}

}  // namespace
}  // namespace autosp::agent
