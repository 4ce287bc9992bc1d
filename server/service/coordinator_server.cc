#include "server/service/coordinator_server.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <cstdlib>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "proto/certificate_expiry.h"
#include "server/metrics.h"
#include "server/service/agent_commander.h"
#include "server/service/coordinator_agent_service.h"
#include "server/service/coordinator_service.h"
#include "server/service/limits.h"
#include "server/service/rpc_timer.h"

namespace autosp {

// In the order of construction; taken down by Stop().
struct CoordinatorServer::Parts {
  MetricRegistry metrics{kCoordinatorMetrics};
  std::unique_ptr<JobStore> store;
  std::unique_ptr<CoordinatorDriver> driver;
  std::unique_ptr<AgentCommander> commander;
  std::unique_ptr<JobIntake> intake;
  std::unique_ptr<CoordinatorServiceImpl> service;
  std::unique_ptr<CoordinatorAgentServiceImpl> agent_service;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<MetricsServer> metrics_server;
  int port = 0;

  // Also where the start fails half-way: the ticker must not find a commander that is gone.
  ~Parts() {
    if (driver != nullptr) driver->Stop();
  }
};

namespace {

std::vector<ExpectedNode> ExpectedNodes(const std::optional<ClusterSpec>& cluster) {
  std::vector<ExpectedNode> nodes;
  if (!cluster) return nodes;
  for (const NodeSpec& node : cluster->nodes) {
    nodes.push_back({.node = NodeId(node.name),
                     .device_kind = node.kind == DeviceKind::kCpu ? "cpu" : "cuda",
                     .num_devices = node.devices});
  }
  return nodes;
}

// Of jobs from before this start.
void RecordPredictions(const std::vector<Job>& jobs, const JobStore& store,
                       CoordinatorDriver& driver) {
  for (const Job& job : jobs) {
    const absl::StatusOr<JobInputs> inputs = store.GetInputs(job.id);
    v1::PlanSummary plan;
    if (!inputs.ok() || !plan.ParseFromString(inputs->plan_summary)) {
      LogWarning("job ", job.id, ": its stored plan cannot be read; no metric has its prediction");
      continue;
    }
    driver.RecordPrediction(
        job.id, {plan.predicted_peak_bytes().begin(), plan.predicted_peak_bytes().end()});
  }
}

}  // namespace

CoordinatorOptions OptionsForLease(absl::Duration lease) {
  CoordinatorOptions options;
  options.lease = lease;
  options.heartbeat_interval = std::min(absl::Seconds(1), lease / 10);
  options.suspect_after = std::min(absl::Seconds(3), lease / 4);
  options.probe_interval = options.heartbeat_interval;
  options.prepare_timeout = kPrepareDeadline;
  return options;
}

absl::StatusOr<std::unique_ptr<CoordinatorServer>> CoordinatorServer::Start(
    CoordinatorServerOptions options, JobCompiler compile) {
  auto parts = std::make_unique<Parts>();
  RETURN_IF_ERROR(MakeDirectories(options.state_dir));
  ASSIGN_OR_RETURN(parts->store, JobStore::Open(JoinPath(options.state_dir, "autosp.db")));
  ASSIGN_OR_RETURN(const std::vector<Job> active, parts->store->ActiveJobs());
  LogInfo("store ", options.state_dir, ": ", active.size(), " jobs that have not ended");

  options.coordinator.expected_nodes = ExpectedNodes(options.cluster);
  parts->driver = std::make_unique<CoordinatorDriver>(options.coordinator, active, *parts->store,
                                                      parts->metrics, Clock::Real());
  parts->commander =
      std::make_unique<AgentCommander>(*parts->driver, *parts->store, options.credentials);
  parts->intake = std::make_unique<JobIntake>(std::move(compile), options.cluster, *parts->driver,
                                              *parts->store, parts->metrics);
  parts->service = std::make_unique<CoordinatorServiceImpl>(*parts->driver, *parts->intake,
                                                            *parts->store, options.credentials);
  parts->agent_service = std::make_unique<CoordinatorAgentServiceImpl>(
      *parts->driver, options.coordinator, RandomId("coordinator"));

  // Before the first call: an effect that finds nobody to perform it is lost.
  parts->driver->Start(*parts->commander);

  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(options.listen_address,
                           options.credentials.OfServer(options.tls_clients), &parts->port);
  // Without this a second coordinator on the same port would share its calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  grpc::ResourceQuota quota;
  builder.SetResourceQuota(quota.SetMaxThreads(kMaxServerThreads));
  builder.RegisterService(parts->service.get());
  builder.RegisterService(parts->agent_service.get());
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> timers;
  timers.push_back(std::make_unique<RpcTimerFactory>(parts->metrics));
  builder.experimental().SetInterceptorCreators(std::move(timers));
  parts->server = builder.BuildAndStart();
  if (parts->server == nullptr || parts->port == 0) {
    return Unavailable("cannot listen on ", options.listen_address,
                       "; is another program using the port?");
  }
  PublishExpiries(options.credentials, kCertificateExpiry, parts->metrics);
  if (!options.metrics_address.empty()) {
    ASSIGN_OR_RETURN(parts->metrics_server,
                     MetricsServer::Start(parts->metrics, options.metrics_address));
  }
  // Agents are answered by now: this reads what was stored of every job.
  RecordPredictions(active, *parts->store, *parts->driver);
  return std::unique_ptr<CoordinatorServer>(new CoordinatorServer(std::move(parts)));
}

CoordinatorServer::CoordinatorServer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

CoordinatorServer::~CoordinatorServer() {
  // Wakes the streams, so that the server need not wait for them.
  parts_->driver->Stop();
  parts_->intake->Stop();
  parts_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
  parts_->server->Wait();
  parts_->commander = nullptr;
}

void ExitAfter(absl::Duration patience) {
  std::thread([patience] {
    Clock::Real().Sleep(patience);
    LogInfo("does not wait for calls that still run");
    std::_Exit(0);
  }).detach();
}

int CoordinatorServer::port() const { return parts_->port; }

int CoordinatorServer::metrics_port() const {
  return parts_->metrics_server == nullptr ? 0 : parts_->metrics_server->port();
}

}  // namespace autosp
