// The services over a real connection, without agents: what users see of jobs that wait.
#include "server/service/coordinator_server.h"

#include <grpcpp/create_channel.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "autosp/v1/agent.grpc.pb.h"
#include "autosp/v1/coordinator.grpc.pb.h"
#include "common/clock.h"
#include "common/error_info.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/grpc_status.h"
#include "server/service/limits.h"
#include "tests/common/http_get.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"
#include "tests/server/service/fake_compile.h"

namespace autosp {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

std::string JobYaml(const std::string& name, int ranks) {
  return absl::StrCat("version: 1\nkind: Job\nname: ", name,
                      "\nmodel: {archive: /m.pt2}\ndata: {format: text, files: [/a.txt]}\n"
                      "training: {seq_len: 64, global_batch_size: 2, steps: 5}\n"
                      "parallelism: {ranks: ",
                      ranks, "}\noutput: {dir: /out}\n");
}

ClusterSpec ClusterOf(const std::vector<std::string>& names, int64_t devices) {
  ClusterSpec cluster;
  for (const std::string& name : names) {
    NodeSpec& node = cluster.nodes.emplace_back();
    node.name = name;
    node.devices = devices;
  }
  return cluster;
}

class CoordinatorServerTest : public testing::Test {
 protected:
  CoordinatorServerTest() { Restart(); }

  void Restart(std::optional<ClusterSpec> cluster = std::nullopt,
               Compiler compiler = FakeCompiler(), CoordinatorOptions options = {}) {
    server_ = nullptr;
    absl::StatusOr<std::unique_ptr<CoordinatorServer>> server =
        CoordinatorServer::Start({.listen_address = "127.0.0.1:0",
                                  .state_dir = dir_.path(),
                                  .metrics_address = "127.0.0.1:0",
                                  .cluster = std::move(cluster),
                                  .coordinator = std::move(options)},
                                 InThisProcess(std::move(compiler)));
    ASSERT_THAT(server, IsOk());
    server_ = *std::move(server);
    stub_ = v1::CoordinatorService::NewStub(Connect());
  }

  std::shared_ptr<grpc::Channel> Connect() const {
    return grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()),
                               grpc::InsecureChannelCredentials());
  }

  template <typename Response, typename Request, typename Method>
  absl::StatusOr<Response> Call(Method method, const Request& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    Response response;
    const grpc::Status status = ((*stub_).*method)(&context, request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }

  absl::StatusOr<v1::SubmitJobResponse> Submit(const std::string& name, int ranks = 1,
                                               const std::string& request_id = "") {
    v1::SubmitJobRequest request;
    request.set_request_id(request_id.empty() ? "request-" + name : request_id);
    request.set_job_yaml(JobYaml(name, ranks));
    return Call<v1::SubmitJobResponse>(&v1::CoordinatorService::Stub::SubmitJob, request);
  }

  absl::StatusOr<v1::GetJobResponse> Get(const std::string& job_id) {
    v1::GetJobRequest request;
    request.set_job_id(job_id);
    return Call<v1::GetJobResponse>(&v1::CoordinatorService::Stub::GetJob, request);
  }

  absl::StatusOr<v1::CancelJobResponse> Cancel(const std::string& job_id) {
    v1::CancelJobRequest request;
    request.set_request_id("cancel-" + job_id);
    request.set_job_id(job_id);
    request.set_reason("enough");
    return Call<v1::CancelJobResponse>(&v1::CoordinatorService::Stub::CancelJob, request);
  }

  // All events of a job, once it has ended.
  std::vector<v1::JobEvent> Watch(const std::string& job_id) {
    grpc::ClientContext context;
    v1::WatchJobRequest request;
    request.set_job_id(job_id);
    auto reader = stub_->WatchJob(&context, request);
    std::vector<v1::JobEvent> events;
    v1::WatchJobResponse response;
    while (reader->Read(&response)) events.push_back(response.event());
    EXPECT_TRUE(reader->Finish().ok());
    return events;
  }

  // Watches a job of its own and cancels it.
  void RunJobToItsCancel(const std::string& name) {
    ASSERT_OK_AND_ASSIGN(const v1::SubmitJobResponse submitted, Submit(name));
    const std::string job_id = submitted.job().job_id();
    std::vector<v1::JobEvent> events;
    std::thread watcher([&] { events = Watch(job_id); });
    EXPECT_THAT(Get(job_id), IsOk());
    EXPECT_THAT(Cancel(job_id), IsOk());
    watcher.join();
    ASSERT_FALSE(events.empty());
    EXPECT_EQ(events.back().state_changed().to(), v1::JOB_STATE_CANCELLED);
  }

  absl::StatusOr<v1::ListJobsResponse> ListJobs() {
    return Call<v1::ListJobsResponse>(&v1::CoordinatorService::Stub::ListJobs,
                                      v1::ListJobsRequest());
  }

  absl::StatusOr<v1::ListNodesResponse> ListNodes() {
    return Call<v1::ListNodesResponse>(&v1::CoordinatorService::Stub::ListNodes,
                                       v1::ListNodesRequest());
  }

  std::string Scrape() { return HttpGet(server_->metrics_port(), "/metrics"); }

  TempDir dir_;
  std::unique_ptr<CoordinatorServer> server_;
  std::unique_ptr<v1::CoordinatorService::Stub> stub_;
};

TEST_F(CoordinatorServerTest, AnAcceptedJobOutlivesTheServer) {
  ASSERT_OK_AND_ASSIGN(const v1::SubmitJobResponse submitted, Submit("j", 2));
  const v1::Job& job = submitted.job();
  EXPECT_EQ(job.state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(job.world_size(), 2);
  EXPECT_EQ(job.plan().seq_len(), 64);
  EXPECT_EQ(job.plan().predicted_peak_bytes().at("device"), 1 << 20);
  EXPECT_EQ(job.pending().devices_needed(), 2);
  EXPECT_THAT(job.pending().message(), HasSubstr("needs 2 cpu devices"));
  Restart();
  ASSERT_OK_AND_ASSIGN(const v1::GetJobResponse again, Get(job.job_id()));
  EXPECT_EQ(again.job().state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(again.job().name(), "j");
}

TEST_F(CoordinatorServerTest, OneRequestIsOneJob) {
  ASSERT_OK_AND_ASSIGN(const v1::SubmitJobResponse first, Submit("j"));
  EXPECT_FALSE(first.was_duplicate());
  ASSERT_OK_AND_ASSIGN(const v1::SubmitJobResponse second, Submit("j"));
  EXPECT_TRUE(second.was_duplicate());
  EXPECT_EQ(second.job().job_id(), first.job().job_id());
  Restart();
  ASSERT_OK_AND_ASSIGN(const v1::SubmitJobResponse third, Submit("j"));
  EXPECT_TRUE(third.was_duplicate());
}

TEST_F(CoordinatorServerTest, AnIdIsForOneRequestOnly) {
  ASSERT_OK_AND_ASSIGN(const v1::SubmitJobResponse first, Submit("j"));
  v1::SubmitJobRequest other_file;
  other_file.set_request_id("request-j");
  other_file.set_job_yaml(JobYaml("j", 1));
  v1::FileRef* file = other_file.add_files();
  file->set_role(v1::FileRef::ROLE_ARCHIVE);
  file->set_uri("file:///m.pt2");
  file->set_sha256(std::string(64, '0'));
  for (const bool is_restarted : {false, true}) {
    if (is_restarted) Restart();
    for (const auto& second :
         {Submit("other", 1, "request-j"), Submit("j", 2, "request-j"),
          Call<v1::SubmitJobResponse>(&v1::CoordinatorService::Stub::SubmitJob, other_file)}) {
      EXPECT_THAT(second, IsError(absl::StatusCode::kAlreadyExists,
                                  HasSubstr("has made job " + first.job().job_id())));
      EXPECT_EQ(GetErrorInfo(second.status()).reason, "REQUEST_DIFFERS");
    }
  }
}

TEST_F(CoordinatorServerTest, RefusesWithReasons) {
  const absl::Status unplanned = Submit("cannot-be-planned").status();
  EXPECT_THAT(unplanned, IsError(absl::StatusCode::kInvalidArgument, HasSubstr("too odd")));
  EXPECT_EQ(GetErrorInfo(unplanned).reason, "JOB_NOT_PLANNED");

  v1::SubmitJobRequest request;
  request.set_request_id("r");
  request.set_job_yaml("version: 1\nkind: Job\nmodle: {}\n");
  const absl::Status bad_yaml =
      Call<v1::SubmitJobResponse>(&v1::CoordinatorService::Stub::SubmitJob, request).status();
  EXPECT_THAT(bad_yaml, IsError(absl::StatusCode::kInvalidArgument, HasSubstr("modle")));
  EXPECT_EQ(GetErrorInfo(bad_yaml).reason, "JOB_FILE_INVALID");

  const absl::Status unknown = Get("job-none").status();
  EXPECT_THAT(unknown, IsError(absl::StatusCode::kNotFound, HasSubstr("job-none")));
  EXPECT_EQ(GetErrorInfo(unknown).reason, "JOB_NOT_FOUND");
}

TEST_F(CoordinatorServerTest, RefusesWhatTheClusterCanNeverHold) {
  Restart(ClusterOf({"a", "b"}, 2));
  EXPECT_THAT(Submit("fits", 4), IsOk());
  const absl::Status status = Submit("too-large", 5).status();
  EXPECT_THAT(status, IsError(absl::StatusCode::kInvalidArgument,
                              HasSubstr("needs 5 cpu devices, and the cluster has 4 on 2 nodes")));
  EXPECT_EQ(GetErrorInfo(status).reason, "JOB_NEVER_FITS");
  EXPECT_EQ(GetErrorInfo(status).metadata.at("devices_total"), "4");
}

TEST_F(CoordinatorServerTest, AFullQueueIsKnownBeforeAJobIsCompiled) {
  std::atomic<int> num_compiled = 0;
  Compiler counting = FakeCompiler();
  counting.compile = [&](const JobSpec& job, const ClusterSpec& cluster) {
    ++num_compiled;
    return FakeCompile(job, cluster);
  };
  CoordinatorOptions options;
  options.max_jobs = 1;
  Restart(std::nullopt, counting, options);
  ASSERT_THAT(Submit("j1"), IsOk());
  const absl::Status refusal = Submit("j2").status();
  EXPECT_THAT(refusal,
              IsError(absl::StatusCode::kResourceExhausted, HasSubstr("1 job wait or run")));
  EXPECT_EQ(GetErrorInfo(refusal).reason, "QUEUE_FULL");
  EXPECT_EQ(num_compiled, 1);
  EXPECT_TRUE(Submit("j1")->was_duplicate()) << "what was accepted is not refused";
  server_ = nullptr;  // before the counter
}

TEST_F(CoordinatorServerTest, APlanThatIsNotProvedIsVerifiedUnasked) {
  std::atomic<int> num_made = 0;
  Compiler counting = FakeCompiler();
  counting.make_verification = [&](const JobSpec& job, const ClusterSpec& cluster,
                                   const PlanSummary& plan) {
    ++num_made;
    return FakeVerification(job, cluster, plan);
  };
  Restart(std::nullopt, counting, {});
  ASSERT_THAT(Submit("proved"), IsOk());
  EXPECT_EQ(num_made, 0);
  ASSERT_THAT(Submit(kUnprovedJob), IsOk());
  EXPECT_EQ(num_made, 1);
  v1::SubmitJobRequest trusting;
  trusting.set_request_id("trusting");
  trusting.set_job_yaml(JobYaml(kUnprovedJob, 1) + "verify: never\n");
  EXPECT_THAT(
      Call<v1::SubmitJobResponse>(&v1::CoordinatorService::Stub::SubmitJob, trusting).status(),
      IsOk());
  EXPECT_EQ(num_made, 1);
  server_ = nullptr;  // before the counter
}

TEST_F(CoordinatorServerTest, LogsAnAgentThatIsRefusedOnce) {
  Restart(ClusterOf({"node-a"}, 2));
  std::unique_ptr<v1::CoordinatorAgentService::Stub> agents =
      v1::CoordinatorAgentService::NewStub(Connect());
  v1::RegisterAgentRequest request;
  request.set_node_id("node-b");
  request.set_agent_instance_id("instance-1");
  request.set_agent_address("127.0.0.1:7071");
  request.set_agent_version("0.1.0");
  request.set_device_kind(v1::DEVICE_KIND_CPU);
  request.set_num_devices(2);
  testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) {
    grpc::ClientContext context;
    v1::RegisterAgentResponse response;
    EXPECT_FALSE(agents->RegisterAgent(&context, request, &response).ok());
  }
  const std::string log = testing::internal::GetCapturedStderr();
  const std::string line = "the agent of node \"node-b\" at ipv4:127.0.0.1";
  EXPECT_THAT(log, HasSubstr("node-b is not in the cluster file"));
  ASSERT_THAT(log, HasSubstr(line));
  EXPECT_EQ(log.find(line), log.rfind(line)) << log;
}

TEST_F(CoordinatorServerTest, ListsJobsByPages) {
  for (int i = 0; i < 5; ++i) ASSERT_THAT(Submit(absl::StrCat("j", i)), IsOk());
  v1::ListJobsRequest request;
  request.set_page_size(2);
  std::vector<std::string> names;
  int num_pages = 0;
  do {
    ASSERT_OK_AND_ASSIGN(
        const v1::ListJobsResponse page,
        Call<v1::ListJobsResponse>(&v1::CoordinatorService::Stub::ListJobs, request));
    for (const v1::Job& job : page.jobs()) names.push_back(job.name());
    request.set_page_token(page.next_page_token());
    ++num_pages;
  } while (!request.page_token().empty());
  EXPECT_THAT(names, testing::ElementsAre("j4", "j3", "j2", "j1", "j0"));
  EXPECT_EQ(num_pages, 3);
}

TEST_F(CoordinatorServerTest, WatchesAJobToItsEnd) {
  ASSERT_OK_AND_ASSIGN(const v1::SubmitJobResponse submitted, Submit("j"));
  const std::string job_id = submitted.job().job_id();
  std::thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    EXPECT_THAT(Cancel(job_id), IsOk());
  });
  const std::vector<v1::JobEvent> events = Watch(job_id);
  canceller.join();
  ASSERT_GE(events.size(), 2u);
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].sequence(), static_cast<int64_t>(i) + 1);
  }
  EXPECT_EQ(events.front().state_changed().to(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(events.back().state_changed().to(), v1::JOB_STATE_CANCELLED);
  EXPECT_THAT(events.back().state_changed().cause().message(), HasSubstr("enough"));
}

TEST_F(CoordinatorServerTest, ServesManyCallersAtOnce) {
  Restart(ClusterOf({"a", "b"}, 2));
  std::atomic<bool> is_over = false;
  // In turns, so that the callers get on.
  const auto look = [&is_over](const std::function<void()>& once) {
    while (!is_over) {
      once();
      Clock::Real().Sleep(absl::Milliseconds(5));
    }
  };
  std::vector<std::thread> lookers;
  lookers.emplace_back(look, [this] { EXPECT_THAT(Scrape(), HasSubstr("200 OK")); });
  lookers.emplace_back(look, [this] { EXPECT_THAT(ListJobs(), IsOk()); });
  lookers.emplace_back(look, [this] { EXPECT_THAT(ListNodes(), IsOk()); });
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([this, i] {
      for (int j = 0; j < 5; ++j) RunJobToItsCancel(absl::StrCat("j", i, "-", j));
    });
  }
  for (std::thread& caller : callers) caller.join();
  is_over = true;
  for (std::thread& looker : lookers) looker.join();
  EXPECT_THAT(
      Scrape(),
      testing::AllOf(
          HasSubstr("autosp_job_transitions_total{from=\"none\",to=\"queued\"} 20\n"),
          HasSubstr("autosp_job_transitions_total{from=\"queued\",to=\"cancelled\"} 20\n")));
}

TEST_F(CoordinatorServerTest, ShowsPlanNodesAndLogs) {
  Restart(ClusterOf({"a"}, 2));
  ASSERT_OK_AND_ASSIGN(const v1::SubmitJobResponse submitted, Submit("j"));
  v1::GetPlanRequest plan_request;
  plan_request.set_job_id(submitted.job().job_id());
  plan_request.set_include_program_text(true);
  ASSERT_OK_AND_ASSIGN(
      const v1::GetPlanResponse plan,
      Call<v1::GetPlanResponse>(&v1::CoordinatorService::Stub::GetPlan, plan_request));
  EXPECT_EQ(plan.plan().program_text(), "program of j\n");
  EXPECT_FALSE(plan.plan().summary_text().empty());

  ASSERT_OK_AND_ASSIGN(const v1::ListNodesResponse nodes, ListNodes());
  ASSERT_THAT(nodes.nodes(), SizeIs(1));
  EXPECT_EQ(nodes.nodes(0).state(), v1::Node::STATE_EXPECTED);

  grpc::ClientContext context;
  v1::GetLogsRequest logs_request;
  logs_request.set_job_id(submitted.job().job_id());
  auto reader = stub_->GetLogs(&context, logs_request);
  v1::GetLogsResponse chunk;
  EXPECT_FALSE(reader->Read(&chunk));
  EXPECT_THAT(FromGrpcStatus(reader->Finish()),
              IsError(absl::StatusCode::kNotFound, HasSubstr("has no log of rank 0")));
}

TEST_F(CoordinatorServerTest, PredictionsOutliveTheServer) {
  ASSERT_OK_AND_ASSIGN(const v1::SubmitJobResponse submitted, Submit("j"));
  const std::string series =
      absl::StrCat("autosp_job_memory_predicted_peak_bytes{account=\"device\",job_id=\"",
                   submitted.job().job_id(), "\"} 1048576\n");
  EXPECT_THAT(Scrape(), HasSubstr(series));
  Restart();
  EXPECT_THAT(Scrape(), HasSubstr(series));
}

// Holds every plan until it is opened.
class Gate {
 public:
  Compiler Hold() {
    return {[this](const JobSpec& job, const ClusterSpec& cluster) {
              std::unique_lock lock(mutex_);
              ++num_begun_;
              changed_.notify_all();
              changed_.wait(lock, [this] { return is_open_; });
              return FakeCompile(job, cluster);
            },
            FakeVerification};
  }
  void AwaitBegun(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return num_begun_ >= count; });
  }
  int num_begun() {
    const std::lock_guard lock(mutex_);
    return num_begun_;
  }
  void Open() {
    const std::lock_guard lock(mutex_);
    is_open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int num_begun_ = 0;
  bool is_open_ = false;
};

// Agents and users have threads left, and nobody waits for a turn that is a minute away.
TEST_F(CoordinatorServerTest, OnlySoManyWaitToBeCompiled) {
  Gate gate;
  Restart(std::nullopt, gate.Hold());
  std::atomic<int> num_busy = 0;
  std::atomic<int> num_accepted = 0;
  std::vector<std::thread> callers;
  constexpr int kNumRefused = 5;
  for (int i = 0; i < kMaxCompiles + kMaxCompileWaiters + kNumRefused; ++i) {
    callers.emplace_back([this, i, &num_busy, &num_accepted] {
      const absl::Status status = Submit(absl::StrCat("j", i)).status();
      if (status.ok()) ++num_accepted;
      if (GetErrorInfo(status).reason == "COMPILER_BUSY") ++num_busy;
    });
  }
  const absl::Duration end = Clock::Real().Steady() + absl::Seconds(15);
  while (num_busy < kNumRefused && Clock::Real().Steady() < end) {
    Clock::Real().Sleep(absl::Milliseconds(5));
  }
  EXPECT_EQ(num_busy, kNumRefused);
  EXPECT_THAT(ListJobs(), IsOk());
  const std::string running = "\nautosp_compiles{state=\"running\"} ";
  const std::string waiting = "\nautosp_compiles{state=\"waiting\"} ";
  EXPECT_THAT(Scrape(), AllOf(HasSubstr(absl::StrCat(running, kMaxCompiles, "\n")),
                              HasSubstr(absl::StrCat(waiting, kMaxCompileWaiters, "\n"))));
  gate.Open();
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(num_accepted, kMaxCompiles + kMaxCompileWaiters);
  const std::string count = "\nautosp_compile_duration_seconds_count{outcome=";
  EXPECT_THAT(Scrape(),
              AllOf(HasSubstr(running + "0\n"), HasSubstr(waiting + "0\n"),
                    HasSubstr(absl::StrCat(count, "\"planned\"} ", num_accepted.load(), "\n")),
                    HasSubstr(count + "\"failed\"} 0\n")));
}

TEST_F(CoordinatorServerTest, AJobWhoseCallerHasLeftIsNotMade) {
  Gate gate;
  Restart(std::nullopt, gate.Hold());
  grpc::ClientContext context;
  std::thread caller([this, &context] {
    v1::SubmitJobRequest request;
    request.set_request_id("request-j");
    request.set_job_yaml(JobYaml("j", 1));
    v1::SubmitJobResponse response;
    EXPECT_FALSE(stub_->SubmitJob(&context, request, &response).ok());
  });
  gate.AwaitBegun(1);
  context.TryCancel();
  caller.join();
  // Until the server knows as well.
  Clock::Real().Sleep(absl::Seconds(1));
  gate.Open();
  // Behind it; and the same request, made again, is the first one.
  ASSERT_THAT(Submit("k"), IsOk());
  ASSERT_OK_AND_ASSIGN(const v1::SubmitJobResponse again, Submit("j"));
  EXPECT_FALSE(again.was_duplicate());
  server_ = nullptr;  // before the gate
}

TEST_F(CoordinatorServerTest, WhoWaitsToBeCompiledDoesNotDelayTheEnd) {
  Gate gate;
  Restart(std::nullopt, gate.Hold());
  std::vector<std::thread> callers;
  for (int i = 0; i < kMaxCompiles + 3; ++i) {
    callers.emplace_back([this, i] { Submit(absl::StrCat("j", i)).IgnoreError(); });
  }
  gate.AwaitBegun(kMaxCompiles);
  std::thread opener([&gate] {
    // When the server has begun to end.
    Clock::Real().Sleep(absl::Milliseconds(500));
    gate.Open();
  });
  server_ = nullptr;
  opener.join();
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(gate.num_begun(), kMaxCompiles) << "those that waited are not compiled any more";
}

TEST_F(CoordinatorServerTest, RefusesASecondServerOnItsState) {
  EXPECT_THAT(CoordinatorServer::Start({.state_dir = dir_.path()}, InThisProcess(FakeCompiler())),
              IsError(absl::StatusCode::kFailedPrecondition, HasSubstr("in use")));
}

TEST_F(CoordinatorServerTest, RefusesAPortThatIsTaken) {
  TempDir other;
  EXPECT_THAT(
      CoordinatorServer::Start({.listen_address = absl::StrCat("127.0.0.1:", server_->port()),
                                .state_dir = other.path()},
                               InThisProcess(FakeCompiler())),
      IsError(absl::StatusCode::kUnavailable, HasSubstr("cannot listen")));
  // Of metrics alone: by then the coordinator has begun to work.
  EXPECT_FALSE(CoordinatorServer::Start(
                   {.state_dir = other.path(),
                    .metrics_address = absl::StrCat("127.0.0.1:", server_->metrics_port())},
                   InThisProcess(FakeCompiler()))
                   .ok());
}

}  // namespace
}  // namespace autosp
