// Keeps the coordinator informed: registration, heartbeats, and what ranks report.
//
// Two threads. One registers and then sends heartbeats, each of which carries everything that the
// agent holds, so one of them is enough to attach again to a coordinator that has restarted. The
// other forwards reports as they come and sends again what was not answered.

#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/random/random.h"
#include "absl/time/time.h"
#include "autosp/v1/agent.grpc.pb.h"
#include "common/metrics_exporter.h"
#include "proto/credentials.h"
#include "worker/agent/agent.h"
#include "worker/agent/backoff.h"
#include "worker/agent/report_queue.h"

namespace autosp::agent {

struct LinkOptions {
  std::string coordinator_address;
  std::string agent_address;  // Where AgentService listens, as the coordinator can reach it.
  Credentials credentials;
  NodeId node_id;
  bool has_gpus = false;
  int num_devices = 1;
  int64_t device_memory_bytes = 0;
  // Called when the coordinator begins to know this agent, and when it does not any more.
  std::function<void(bool is_registered)> on_registered = [](bool) {};
  // The longest lease that the agent accepts; the coordinator may ask for a shorter one.
  absl::Duration max_lease = absl::Seconds(15);
};

// The agent, the queue and the registry outlive it.
class CoordinatorLink {
 public:
  CoordinatorLink(const LinkOptions& options, Agent& agent, ReportQueue& queue,
                  MetricRegistry& registry);
  // Ends at once; what is queued stays so.
  ~CoordinatorLink();

  // Sends a heartbeat before its time. Thread-safe.
  void SendHeartbeatNow();
  // Waits until the coordinator has all reports and has heard of the present state, or for
  // `timeout`. For the end of the agent.
  void Flush(absl::Duration timeout);

 private:
  void HeartbeatLoop();
  void ReportLoop();
  // How long to wait before the next call.
  absl::Duration Beat();
  void SetDeadline(grpc::ClientContext& context) const;
  void SetRegistered(bool is_registered);
  grpc::Status Register();
  grpc::Status SendHeartbeat();
  template <typename Response>
  void Accept(const Response& response, absl::Duration sent_at);
  // False when the same reports should be sent again, later.
  bool SendReports();
  void HandleRefusal(const absl::Status& status);
  // Whether the last call ended otherwise, so that each change is logged once.
  bool IsNews(const std::string& contact);
  // False once the link is ending.
  bool WaitFor(absl::Duration duration);

  const LinkOptions options_;
  const std::string instance_id_;
  const absl::Time start_time_;
  Agent& agent_;
  ReportQueue& queue_;
  MetricRegistry& registry_;
  std::unique_ptr<v1::CoordinatorAgentService::Stub> stub_;

  // Of the heartbeat thread.
  Backoff backoff_;
  absl::BitGen random_;
  int64_t sequence_ = 0;
  int64_t answer_token_ = 0;
  absl::Duration heartbeat_interval_;
  absl::Duration last_round_trip_;  // Of a heartbeat; zero: there was none.
  std::string last_contact_;        // It answers, it is away, or what it refuses with; see IsNews.
  std::atomic<bool> is_registered_ = false;

  std::mutex mutex_;  // Guards what follows, up to the threads.
  std::condition_variable changed_;
  bool is_ending_ = false;
  bool is_wanted_now_ = false;
  int64_t num_wanted_ = 0;
  int64_t num_answered_ = 0;
  std::thread heartbeat_thread_;
  std::thread report_thread_;
};

}  // namespace autosp::agent
