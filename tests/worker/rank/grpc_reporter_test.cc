// The reporter against a real server on a unix socket.

#include "worker/rank/grpc_reporter.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "autosp/v1/rank.grpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

using testing::HasSubstr;

// Keeps what comes; ends the call with an error after `refuse_after` reports, if that is not 0.
class FakeAgent final : public v1::RankService::Service {
 public:
  explicit FakeAgent(const std::string& socket_path, size_t refuse_after = 0)
      : refuse_after_(refuse_after) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket_path, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeAgent() override { Shutdown(); }

  void Shutdown() { server_->Shutdown(std::chrono::system_clock::now()); }

  grpc::Status Report(grpc::ServerContext* /*context*/, grpc::ServerReader<v1::RankReport>* reader,
                      v1::ReportResponse* /*response*/) override {
    v1::RankReport report;
    while (reader->Read(&report)) {
      const std::lock_guard<std::mutex> lock(mutex_);
      reports_.push_back(report);
      changed_.notify_all();
      if (reports_.size() == refuse_after_) {
        return {grpc::StatusCode::FAILED_PRECONDITION, "generation 1 is stale"};
      }
    }
    return grpc::Status::OK;
  }

  std::vector<v1::RankReport> reports() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return reports_;
  }

  bool WaitForReports(size_t count) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10),
                             [&] { return reports_.size() >= count; });
  }

 private:
  const size_t refuse_after_;
  std::unique_ptr<grpc::Server> server_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::RankReport> reports_;
};

// What OnLost was told.
class Loss {
 public:
  GrpcReporter::OnLost Listener() {
    return [this](const absl::Status& why) {
      const std::lock_guard<std::mutex> lock(mutex_);
      status_ = why;
      changed_.notify_all();
    };
  }
  absl::Status Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(10), [this] { return !status_.ok(); });
    return status_;
  }
  absl::Status status() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return status_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  absl::Status status_;
};

class GrpcReporterTest : public testing::Test {
 protected:
  GrpcReporterTest() {
    static int count = 0;
    config_.job_id = "job-1";
    config_.generation = 2;
    config_.rank = 1;
    config_.agent_socket_path =
        absl::StrCat(testing::TempDir(), "/grpc_reporter_", getpid(), "_", count++, ".sock");
  }

  std::unique_ptr<GrpcReporter> Connect() {
    auto reporter = GrpcReporter::Connect(config_, absl::Seconds(10), loss_.Listener());
    EXPECT_TRUE(reporter.ok()) << reporter.status();
    return *std::move(reporter);
  }

  RankConfig config_;
  Loss loss_;
};

TEST_F(GrpcReporterTest, EverythingArrivesInOrderBeforeCloseReturns) {
  FakeAgent agent(config_.agent_socket_path);
  const auto reporter = Connect();
  reporter->Hello("abc");
  for (int64_t step = 1; step <= 500; ++step) {
    StepInfo info;
    info.step = step;
    info.loss = 1.0 / static_cast<double>(step);
    info.grad_norm = 3.5;
    info.memory["device"] = {.current_bytes = 10, .peak_bytes = 20};
    info.collectives.push_back({.kind = "all_to_all",
                                .phase = "forward",
                                .calls = 2,
                                .bytes_received = 64,
                                .seconds = 0.5});
    reporter->Step(info);
  }
  reporter->Finished({{.kind = "weights", .path = "/o/m", .sha256 = "ff", .size_bytes = 9}});
  EXPECT_TRUE(reporter->Close().ok());

  const auto reports = agent.reports();
  ASSERT_EQ(reports.size(), 502);
  EXPECT_EQ(reports[0].hello().program_digest(), "abc");
  EXPECT_EQ(reports[0].hello().pid(), getpid());
  EXPECT_EQ(reports[0].attempt().generation(), 2);
  EXPECT_EQ(reports[0].rank(), 1);
  for (int64_t step = 1; step <= 500; ++step) ASSERT_EQ(reports[step].step().step(), step);
  EXPECT_EQ(reports[7].step().memory(0).peak_bytes(), 20);
  EXPECT_EQ(reports[7].step().collectives(0).bytes_received(), 64);
  EXPECT_TRUE(reports[7].step().has_grad_norm());
  EXPECT_FALSE(reports[7].step().has_validation_loss());
  EXPECT_EQ(reports[501].finished().outputs(0).path(), "/o/m");
  EXPECT_TRUE(loss_.status().ok());
}

TEST_F(GrpcReporterTest, FailureSaysWhetherItIsAnEcho) {
  FakeAgent agent(config_.agent_socket_path);
  const auto reporter = Connect();
  reporter->Hello("");
  reporter->Failed(
      {.status = absl::ResourceExhaustedError("out of memory"), .step = 7, .is_peer_lost = true});
  EXPECT_TRUE(reporter->Close().ok());
  const auto failure = agent.reports().at(1).failure();
  EXPECT_EQ(failure.status_code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(failure.message(), "out of memory");
  EXPECT_EQ(failure.step(), 7);
  EXPECT_TRUE(failure.is_peer_lost());
}

TEST_F(GrpcReporterTest, RefusedRankLearnsWhy) {
  FakeAgent agent(config_.agent_socket_path, /*refuse_after=*/1);
  const auto reporter = Connect();
  reporter->Hello("");
  const absl::Status why = loss_.Wait();
  EXPECT_EQ(why.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(why.message()), HasSubstr("stale"));
  EXPECT_FALSE(reporter->Close().ok());
}

// While nothing is written: the rank is in the middle of a long step.
TEST_F(GrpcReporterTest, AgentThatGoesAwayIsNoticedAtOnce) {
  auto agent = std::make_unique<FakeAgent>(config_.agent_socket_path);
  const auto reporter = Connect();
  reporter->Hello("");
  ASSERT_TRUE(agent->WaitForReports(1));
  agent->Shutdown();
  EXPECT_FALSE(loss_.Wait().ok());
  // Nothing that comes after may hang.
  reporter->Step({});
  EXPECT_FALSE(reporter->Close().ok());
}

TEST_F(GrpcReporterTest, AbsentAgentIsAnError) {
  const auto reporter = GrpcReporter::Connect(config_, absl::Milliseconds(200), loss_.Listener());
  EXPECT_EQ(reporter.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(reporter.status().message()), HasSubstr(config_.agent_socket_path));
}

}  // namespace
}  // namespace autosp
