// A coordinator, agents and scripted ranks as real processes, some of which are killed.
#include <grpcpp/create_channel.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "autosp/v1/coordinator.grpc.pb.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/subprocess.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/grpc_status.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

// The scripted ranks (tests/worker/agent/fake_rank.cc) take the lines of their job file that begin
// with a star or their number. A quoted scalar over several lines may hold any.
std::string JobYaml(int ranks, const std::vector<std::string>& script, int restarts) {
  std::string yaml =
      "version: 1\nkind: Job\nname: scripted\nmodel:\n  archive: /m.pt2\n  loss_output: \"\n";
  for (const std::string& line : script) absl::StrAppend(&yaml, "    ", line, "\n");
  absl::StrAppend(&yaml, "    \"\n", "data: {format: text, files: [/a.txt]}\n",
                  "training: {seq_len: 64, global_batch_size: 2, steps: 5, max_restarts: ",
                  restarts, "}\nparallelism: {ranks: ", ranks, "}\n");
  return yaml;
}

class ClusterTest : public testing::Test {
 protected:
  ClusterTest() { StartCoordinator(); }

  // `environment` are "NAME=VALUE".
  void StartCoordinator(const std::vector<std::string>& environment = {}) {
    const std::string port_file = JoinPath(dir_.path(), "port");
    ASSERT_THAT(RemoveFile(port_file), IsOk());
    // The port of the first start is kept: that is where the agents look.
    std::vector<std::string> argv = {"/usr/bin/env"};
    argv.insert(argv.end(), environment.begin(), environment.end());
    argv.insert(argv.end(), {std::getenv("AUTOSP_COORDINATOR"), absl::StrCat("127.0.0.1:", port_),
                             port_file, JoinPath(dir_.path(), "state"), "6"});
    coordinator_ = Start(std::move(argv), "coordinator.log");
    port_ = WaitForPort(port_file);
    stub_ = v1::CoordinatorService::NewStub(
        grpc::CreateChannel(absl::StrCat("127.0.0.1:", port_), grpc::InsecureChannelCredentials()));
  }

  std::unique_ptr<Subprocess> StartAgent(const std::string& node, int devices,
                                         const std::string& listen = "127.0.0.1:0") {
    return Start({std::getenv("AUTOSP_AGENT"), absl::StrCat("--coordinator=127.0.0.1:", port_),
                  absl::StrCat("--listen=", listen), absl::StrCat("--node-name=", node),
                  absl::StrCat("--devices=", devices),
                  absl::StrCat("--state-dir=", JoinPath(dir_.path(), node)),
                  absl::StrCat("--rank-binary=", std::getenv("AUTOSP_FAKE_RANK"))},
                 node + ".log");
  }

  std::unique_ptr<Subprocess> Start(std::vector<std::string> argv, const std::string& log) {
    SubprocessOptions options;
    options.argv = std::move(argv);
    options.output = SubprocessOptions::Output::kFile;
    options.output_path = JoinPath(dir_.path(), log);
    options.dies_with_parent = true;
    absl::StatusOr<Subprocess> process = Subprocess::Start(options);
    EXPECT_THAT(process, IsOk());
    return std::make_unique<Subprocess>(*std::move(process));
  }

  int WaitForPort(const std::string& path) {
    for (int i = 0; i < 2000; ++i) {
      if (auto text = ReadFile(path, 100); text.ok() && !text->empty()) return std::stoi(*text);
      Clock::Real().Sleep(absl::Milliseconds(10));
    }
    ADD_FAILURE() << "the coordinator does not listen";
    return 0;
  }

  static void Limit(grpc::ClientContext& context) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    context.set_wait_for_ready(true);
  }

  std::string Submit(int ranks, const std::vector<std::string>& script, int restarts = 0) {
    grpc::ClientContext context;
    Limit(context);
    v1::SubmitJobRequest request;
    request.set_request_id(absl::StrCat("request-", ++num_requests_));
    request.set_job_yaml(absl::StrCat(JobYaml(ranks, script, restarts),
                                      "output: {dir: ", JoinPath(dir_.path(), "out"), "}\n"));
    v1::SubmitJobResponse response;
    const grpc::Status status = stub_->SubmitJob(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.job().job_id();
  }

  // Or the error.
  std::string Log(const std::string& job_id, int rank, int64_t attempt = 0) {
    grpc::ClientContext context;
    Limit(context);
    v1::GetLogsRequest request;
    request.set_job_id(job_id);
    request.set_rank(rank);
    request.set_generation(attempt);
    auto reader = stub_->GetLogs(&context, request);
    std::string log;
    for (v1::GetLogsResponse chunk; reader->Read(&chunk);) log += chunk.data();
    const grpc::Status status = reader->Finish();
    return status.ok() ? log : status.error_message();
  }

  v1::Job Get(const std::string& job_id) {
    grpc::ClientContext context;
    Limit(context);
    v1::GetJobRequest request;
    request.set_job_id(job_id);
    v1::GetJobResponse response;
    const grpc::Status status = stub_->GetJob(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.job();
  }

  // The job once it is as asked for, or as it is when the time is over.
  v1::Job WaitFor(const std::string& job_id, absl::Duration timeout,
                  const std::function<bool(const v1::Job&)>& is_right) {
    const absl::Duration end = Clock::Real().Steady() + timeout;
    v1::Job job = Get(job_id);
    while (!is_right(job) && Clock::Real().Steady() < end) {
      Clock::Real().Sleep(absl::Milliseconds(20));
      job = Get(job_id);
    }
    EXPECT_TRUE(is_right(job)) << job.DebugString() << Logs();
    return job;
  }

  v1::Job WaitForState(const std::string& job_id, absl::Duration timeout, v1::JobState state) {
    return WaitFor(job_id, timeout, [state](const v1::Job& job) { return job.state() == state; });
  }

  v1::Job WaitForReason(const std::string& job_id, const std::string& words) {
    return WaitFor(job_id, absl::Seconds(30),
                   [&words](const v1::Job& job) { return absl::StrContains(job.reason(), words); });
  }

  v1::Job WaitForStep(const std::string& job_id, int64_t step) {
    return WaitFor(job_id, absl::Seconds(30),
                   [step](const v1::Job& job) { return job.progress().last_step() >= step; });
  }

  std::string Logs() {
    std::string logs;
    for (const char* name : {"coordinator.log", "n0.log", "n1.log"}) {
      auto text = ReadFile(JoinPath(dir_.path(), name), 1 << 20);
      if (text.ok()) absl::StrAppend(&logs, "--- ", name, "\n", *text);
    }
    return logs;
  }

  // Within a second. The rank of an agent that was killed is a zombie until somebody reaps it.
  static bool IsGone(int64_t pid) {
    const absl::Duration end = Clock::Real().Steady() + absl::Seconds(1);
    while (Clock::Real().Steady() < end) {
      auto stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"), 4096);
      if (!stat.ok() || absl::StrContains(*stat, ") Z ")) return true;
      Clock::Real().Sleep(absl::Milliseconds(10));
    }
    return false;
  }

  TempDir dir_;
  int port_ = 0;
  int num_requests_ = 0;
  std::unique_ptr<Subprocess> coordinator_;
  std::unique_ptr<v1::CoordinatorService::Stub> stub_;
};

TEST_F(ClusterTest, RunsAJobToItsEnd) {
  auto agent = StartAgent("n0", 2);
  const std::string id = Submit(2, {"* log here we go", "* hello", "* steps 5 20", "* finish"});
  const v1::Job job = WaitForState(id, absl::Seconds(30), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job.progress().last_step(), 5);
  EXPECT_EQ(job.progress().first_loss(), 5.0);
  EXPECT_EQ(job.progress().last_loss(), 1.0);
  EXPECT_EQ(job.progress().peak_bytes().at("device"), 2000);
  EXPECT_THAT(job.outputs(), Not(IsEmpty()));

  EXPECT_THAT(Log(id, /*rank=*/1), HasSubstr("here we go"));
}

// A proxy of the environment is for the web. Nothing listens at this one.
TEST_F(ClusterTest, ReachesAgentsPastAProxy) {
  coordinator_->Signal(SIGKILL);
  coordinator_ = nullptr;
  StartCoordinator({"http_proxy=http://127.0.0.1:9", "grpc_proxy=http://127.0.0.1:9"});
  auto agent = StartAgent("n0", 1);
  const std::string id = Submit(1, {"* log here we go", "* hello", "* steps 5 20", "* finish"});
  WaitForState(id, absl::Seconds(30), v1::JOB_STATE_SUCCEEDED);
  EXPECT_THAT(Log(id, /*rank=*/0), HasSubstr("here we go"));
}

TEST_F(ClusterTest, ShowsLogsOfEarlierAttempts) {
  auto agent = StartAgent("n0", 1);
  const std::string id = Submit(1, {"* hello", "* log tick", "* steps 1000 50"}, /*restarts=*/1);
  const v1::Job first = WaitForStep(id, 2);
  const std::string written = Log(id, 0);
  EXPECT_THAT(written, HasSubstr("tick"));
  ASSERT_EQ(kill(static_cast<pid_t>(first.ranks(0).pid()), SIGKILL), 0);
  WaitFor(id, absl::Seconds(30), [](const v1::Job& job) {
    return job.generation() == 2 && job.state() == v1::JOB_STATE_RUNNING;
  });
  EXPECT_THAT(Log(id, 0, /*attempt=*/1), HasSubstr(written));
  EXPECT_THAT(Log(id, 0, /*attempt=*/3), HasSubstr("those from 1 on have logs"));
}

// The lease of what runs is for the next coordinator, not for plans that this one makes.
TEST_F(ClusterTest, EndsWhileAPlanIsMade) {
  auto agent = StartAgent("n0", 1);
  const v1::Job job = WaitForStep(Submit(1, {"* hello", "* steps 10000 50"}), 2);
  std::thread submitter([this] {
    grpc::ClientContext context;
    Limit(context);
    v1::SubmitJobRequest request;
    request.set_request_id("slow");
    request.set_job_yaml(absl::StrCat(
        absl::StrReplaceAll(JobYaml(1, {"* hello"}, 0), {{"name: scripted", "name: slow-to-plan"}}),
        "output: {dir: ", JoinPath(dir_.path(), "out-slow"), "}\n"));
    v1::SubmitJobResponse response;
    EXPECT_FALSE(stub_->SubmitJob(&context, request, &response).ok());
  });
  Clock::Real().Sleep(absl::Milliseconds(500));
  const absl::Duration start = Clock::Real().Steady();
  coordinator_->Signal(SIGTERM);
  coordinator_->Wait();
  EXPECT_LT(Clock::Real().Steady() - start, absl::Seconds(5));
  EXPECT_THAT(Logs(), HasSubstr("does not wait for calls"));
  submitter.join();
  StartCoordinator();
  Clock::Real().Sleep(absl::Seconds(3));
  EXPECT_EQ(Get(job.job_id()).state(), v1::JOB_STATE_RUNNING);
  EXPECT_FALSE(IsGone(job.ranks(0).pid()));
}

TEST_F(ClusterTest, NamesARankThatIsKilled) {
  auto agent = StartAgent("n0", 2);
  const std::string id = Submit(2, {"* hello", "* log tick", "* steps 1000 50"});
  const v1::Job running = WaitForStep(id, 2);
  const absl::Duration start = Clock::Real().Steady();
  ASSERT_EQ(kill(static_cast<pid_t>(running.ranks(1).pid()), SIGKILL), 0);
  const v1::Job job = WaitForState(id, absl::Seconds(15), v1::JOB_STATE_FAILED);
  EXPECT_LT(Clock::Real().Steady() - start, absl::Seconds(15));
  EXPECT_EQ(job.cause().kind(), v1::FailureCause::KIND_RANK_LOST);
  EXPECT_EQ(job.cause().rank(), 1);
  EXPECT_EQ(job.cause().node_id(), "n0");
  EXPECT_GE(job.cause().last_step(), 2);
  EXPECT_THAT(job.cause().message(), HasSubstr("SIGKILL"));
  EXPECT_THAT(job.cause().log_lines(), Not(IsEmpty()));
  for (const v1::RankPlacement& rank : running.ranks()) EXPECT_TRUE(IsGone(rank.pid()));
}

TEST_F(ClusterTest, NamesAnAgentThatIsKilled) {
  // Before either registers: once one has, a job for two devices would never fit.
  const std::string id = Submit(2, {"* hello", "* steps 1000 50"});
  auto first = StartAgent("n0", 1);
  auto second = StartAgent("n1", 1);
  const v1::Job running = WaitForStep(id, 2);
  const absl::Duration start = Clock::Real().Steady();
  second->Signal(SIGKILL);
  const v1::Job job = WaitForState(id, absl::Seconds(15), v1::JOB_STATE_FAILED);
  EXPECT_LT(Clock::Real().Steady() - start, absl::Seconds(15));
  EXPECT_EQ(job.cause().kind(), v1::FailureCause::KIND_AGENT_LOST);
  EXPECT_EQ(job.cause().node_id(), "n1");
  EXPECT_THAT(job.cause().message(), HasSubstr("nothing listens"));
  for (const v1::RankPlacement& rank : running.ranks()) EXPECT_TRUE(IsGone(rank.pid()));
}

TEST_F(ClusterTest, CancelsARunningJob) {
  auto agent = StartAgent("n0", 2);
  const std::string id = Submit(2, {"* hello", "* ignore_term", "* steps 1000 50"});
  const v1::Job running = WaitForStep(id, 1);
  grpc::ClientContext context;
  Limit(context);
  v1::CancelJobRequest request;
  request.set_request_id("cancel");
  request.set_job_id(id);
  v1::CancelJobResponse response;
  ASSERT_TRUE(stub_->CancelJob(&context, request, &response).ok());
  WaitForState(id, absl::Seconds(15), v1::JOB_STATE_CANCELLED);
  for (const v1::RankPlacement& rank : running.ranks()) EXPECT_TRUE(IsGone(rank.pid()));
}

// Its device is free while the rank of another job takes its time to end.
TEST_F(ClusterTest, AJobThatWaitsOutlivesAnAgentThatEnds) {
  auto agent = StartAgent("n0", 2);
  const std::string quick = Submit(1, {"* hello", "* steps 10000 50"});
  const std::string slow = Submit(1, {"* hello", "* ignore_term", "* steps 10000 50"});
  WaitForStep(quick, 1);
  WaitForStep(slow, 1);
  const std::string waiting = Submit(1, {"* hello", "* steps 1 10", "* finish"});
  agent->Signal(SIGTERM);
  WaitForReason(waiting, "node n0 is ending");
  agent->Wait();
  // For longer than three tries take.
  Clock::Real().Sleep(absl::Seconds(5));
  EXPECT_EQ(Get(waiting).state(), v1::JOB_STATE_QUEUED) << Get(waiting).DebugString() << Logs();
  agent = StartAgent("n0", 2);
  WaitForState(waiting, absl::Seconds(30), v1::JOB_STATE_SUCCEEDED);
}

// It announces its name, which is the address of a group: nothing connects to one, on any network
// and whatever its name servers say.
TEST_F(ClusterTest, AJobOnAnAgentThatCannotBeCalledEnds) {
  auto agent = StartAgent("224.0.0.1", 1, "0.0.0.0:0");
  const std::string id = Submit(1, {"* hello", "* finish"});
  const v1::Job job = WaitForState(id, absl::Seconds(90), v1::JOB_STATE_FAILED);
  EXPECT_THAT(job.cause().message(), HasSubstr("node 224.0.0.1"));
  EXPECT_THAT(job.reason(), HasSubstr("3 attempts to start failed"));
}

TEST_F(ClusterTest, ReattachesAfterTheCoordinatorIsKilled) {
  auto agent = StartAgent("n0", 2);
  const std::string id = Submit(2, {"* hello", "* steps 120 50", "* finish"});
  const v1::Job before = WaitForStep(id, 5);
  coordinator_->Signal(SIGKILL);
  coordinator_ = nullptr;
  Clock::Real().Sleep(absl::Seconds(1));
  StartCoordinator();
  const v1::Job job = WaitForState(id, absl::Seconds(40), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job.generation(), before.generation());
  EXPECT_EQ(job.progress().last_step(), 120);
  EXPECT_EQ(job.ranks(0).pid(), before.ranks(0).pid());
}

TEST_F(ClusterTest, GivesUpAnAttemptWhoseLeaseEnded) {
  auto agent = StartAgent("n0", 1);
  const std::string id = Submit(1, {"* hello", "* steps 10000 50"});
  const v1::Job before = WaitForStep(id, 2);
  coordinator_->Signal(SIGKILL);
  coordinator_ = nullptr;
  // Asking takes another second, and the last heartbeat was before the kill.
  Clock::Real().Sleep(absl::Seconds(2));
  EXPECT_FALSE(IsGone(before.ranks(0).pid())) << "ranks run on for the lease";
  Clock::Real().Sleep(absl::Seconds(7));
  EXPECT_TRUE(IsGone(before.ranks(0).pid())) << "and no longer";
  StartCoordinator();
  WaitForState(id, absl::Seconds(20), v1::JOB_STATE_FAILED);
  // The node is free for the next one.
  const std::string next = Submit(1, {"* hello", "* steps 1 10", "* finish"});
  WaitForState(next, absl::Seconds(30), v1::JOB_STATE_SUCCEEDED);
}

}  // namespace
}  // namespace autosp
