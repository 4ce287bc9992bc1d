// A coordinator that remembers what it is told and answers what a test wants.

#pragma once

#include <grpcpp/server.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "autosp/v1/agent.grpc.pb.h"

namespace autosp::agent {

// Thread-safe.
class FakeCoordinator final : public v1::CoordinatorAgentService::Service {
 public:
  struct Seen {
    std::vector<v1::RegisterAgentRequest> registrations;
    // By job, then by rank: the steps and the last status that were reported.
    std::map<std::string, std::map<int, std::vector<v1::StepReport>>> steps;
    std::map<std::string, std::map<int, v1::RankStatus>> statuses;
    v1::HeartbeatRequest last_heartbeat;
    int num_heartbeats = 0;
    int num_report_calls = 0;

    // Of the last heartbeat; nullptr when it does not list the job.
    const v1::AttemptStatus* Attempt(const std::string& job_id) const;
  };
  struct Answers {
    int64_t lease_ms = 15'000;
    int64_t heartbeat_interval_ms = 50;
    std::vector<v1::AttemptRef> stop_attempts;
    std::vector<v1::AttemptRef> release_attempts;
    bool refuse_reports = false;
    std::string refuse_registration_reason;  // Empty: accept.
  };

  FakeCoordinator();
  ~FakeCoordinator() override;

  // Loses its memory of registrations, as a coordinator that restarts does; keeps its port.
  void Stop();
  void Start();
  int port() const { return port_; }

  void Change(const std::function<void(Answers&)>& change);
  Seen Get();
  // Whether the condition came true in time.
  bool WaitUntil(const std::function<bool(const Seen&)>& condition,
                 absl::Duration timeout = absl::Seconds(10));

  grpc::Status RegisterAgent(grpc::ServerContext* context, const v1::RegisterAgentRequest* request,
                             v1::RegisterAgentResponse* response) override;
  grpc::Status Heartbeat(grpc::ServerContext* context, const v1::HeartbeatRequest* request,
                         v1::HeartbeatResponse* response) override;
  grpc::Status ReportRanks(grpc::ServerContext* context, const v1::ReportRanksRequest* request,
                           v1::ReportRanksResponse* response) override;

 private:
  // Requires: mutex_ is held.
  grpc::Status CheckRegistered();

  std::mutex mutex_;  // Guards the next four.
  std::condition_variable seen_more_;
  Seen seen_;
  Answers answers_;
  bool is_registered_ = false;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace autosp::agent
