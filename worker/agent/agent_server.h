// A whole agent: its loop, its two gRPC servers, its link to the coordinator and its metrics.

#pragma once

#include <grpcpp/server.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/file.h"
#include "common/metrics_exporter.h"
#include "proto/credentials.h"
#include "worker/agent/agent.h"
#include "worker/agent/agent_service.h"
#include "worker/agent/coordinator_link.h"
#include "worker/agent/rank_service.h"
#include "worker/agent/report_queue.h"

namespace autosp::agent {

// gRPC's health service answers for the whole agent ("") once the coordinator knows it, and for
// this name from the start: what restarts an agent must not do so because the coordinator is away.
inline constexpr char kHealthOfProcess[] = "process";

// Whether what listens at `listen_host` is out of reach for a coordinator on another machine, where
// `coordinator_host` seems to be one: it has loopback addresses alone. Debian's installer gives one
// to the machine's own name.
bool OnlyThisMachineReaches(const std::string& listen_host, const std::string& coordinator_host);

struct AgentServerOptions {
  std::string coordinator_address;
  std::string listen_address;   // host:port; port 0 takes any free one.
  std::string metrics_address;  // Empty: no metrics.
  std::string rank_address;  // Where ranks of other nodes reach those here; empty: listen_address.
  PortRange rank_ports;
  Credentials credentials;  // from Credentials::ForServer
  NodeId node_id;
  bool has_gpus = false;
  int num_devices = 1;
  int num_cores = 1;
  int64_t device_memory_bytes = 0;
  std::string state_dir;
  int64_t host_memory_bytes = 0;
  RankPrograms programs;
  absl::Duration max_lease = absl::Seconds(15);
};

class AgentServer {
 public:
  // Listens when it returns; Run must follow. FAILED_PRECONDITION when another agent uses the state
  // folder.
  static absl::StatusOr<std::unique_ptr<AgentServer>> Start(const AgentServerOptions& options);
  ~AgentServer();

  // Returns after RequestShutdown, once every rank has ended and the coordinator has been told.
  void Run();
  // Thread-safe.
  void RequestShutdown(const std::string& reason) { agent_->RequestShutdown(reason); }

  int port() const { return port_; }

 private:
  AgentServer();

  absl::Status Init(const AgentServerOptions& options);
  absl::Status LockStateFolder(const std::string& state_dir);
  absl::Status StartRankServer();
  absl::Status StartAgentServer(const AgentServerOptions& options);

  UniqueFd state_lock_;
  std::string socket_path_;
  std::string socket_folder_to_remove_;  // Empty when the socket is in the state folder.
  MetricRegistry registry_;
  ReportQueue queue_;
  std::unique_ptr<MetricsServer> metrics_server_;
  std::unique_ptr<Agent> agent_;
  std::unique_ptr<AgentServiceImpl> agent_service_;
  std::unique_ptr<RankServiceImpl> rank_service_;
  std::unique_ptr<grpc::Server> rank_server_;
  std::unique_ptr<grpc::Server> agent_server_;
  std::unique_ptr<CoordinatorLink> link_;
  int port_ = 0;
};

}  // namespace autosp::agent
