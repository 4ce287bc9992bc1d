#include "worker/agent/agent_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/agent_protocol.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "common/tcp.h"
#include "proto/certificate_expiry.h"
#include "worker/agent/agent_limits.h"
#include "worker/agent/metrics.h"

namespace autosp::agent {
namespace {

constexpr absl::Duration kFlushTimeout = absl::Seconds(2);

// The folder of the socket is the owner's alone: who can open the socket can speak as a rank. A
// path too long for a unix socket moves the folder to the system's place for temporary files.
absl::StatusOr<std::string> MakeSocketFolder(const std::string& state_dir, bool& is_temporary) {
  std::string folder = JoinPath(state_dir, "run");
  is_temporary = absl::StrCat(folder, "/rank.sock").size() >= sizeof(sockaddr_un::sun_path);
  if (is_temporary) {
    folder = "/tmp/autosp-agent-XXXXXX";
    if (mkdtemp(folder.data()) == nullptr)
      return ErrnoError(errno, "cannot create a folder in /tmp");
    return folder;
  }
  RETURN_IF_ERROR(MakeDirectories(folder));
  if (chmod(folder.c_str(), 0700) != 0) return ErrnoError(errno, absl::StrCat("chmod ", folder));
  return folder;
}

// Nobody can dial a wildcard.
std::string ReachableHost(const std::string& host, const NodeId& node_id) {
  const bool is_wildcard = host.empty() || host == "0.0.0.0" || host == "::";
  return is_wildcard ? node_id.value() : host;
}

// On the address that was named for ranks, else beside the agent itself.
ListenOptions RankListenOptions(const AgentServerOptions& options, const std::string& agent_host) {
  const std::string& host = options.rank_address.empty() ? agent_host : options.rank_address;
  return {.host = host,
          .advertised_host = ReachableHost(host, options.node_id),
          .ports = options.rank_ports};
}

bool IsLoopback(const HostAddress& address) {
  const auto* any = reinterpret_cast<const sockaddr*>(&address.socket_address);
  if (any->sa_family == AF_INET6) {
    return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(any)->sin6_addr);
  }
  const uint32_t v4 = ntohl(reinterpret_cast<const sockaddr_in*>(any)->sin_addr.s_addr);
  return v4 >> IN_CLASSA_NSHIFT == IN_LOOPBACKNET;
}

// False where the name is not known.
bool HasOnlyLoopback(const std::string& host) {
  if (host.empty()) return false;
  const auto addresses = ResolveHost(host);
  return addresses.ok() && std::ranges::all_of(*addresses, IsLoopback);
}

std::chrono::system_clock::time_point Soon() {
  return std::chrono::system_clock::now() + std::chrono::milliseconds(200);
}

}  // namespace

bool OnlyThisMachineReaches(const std::string& listen_host, const std::string& coordinator_host) {
  return HasOnlyLoopback(listen_host) && ResolveHost(coordinator_host).ok() &&
         !HasOnlyLoopback(coordinator_host);
}

AgentServer::AgentServer() : registry_(kAgentMetrics), queue_(kMaxQueuedSteps) {}

absl::StatusOr<std::unique_ptr<AgentServer>> AgentServer::Start(const AgentServerOptions& options) {
  std::unique_ptr<AgentServer> server(new AgentServer());
  RETURN_IF_ERROR(server->Init(options));
  return server;
}

absl::Status AgentServer::Init(const AgentServerOptions& options) {
  RETURN_IF_ERROR(LockStateFolder(options.state_dir));
  bool is_temporary = false;
  ASSIGN_OR_RETURN(const std::string folder, MakeSocketFolder(options.state_dir, is_temporary));
  if (is_temporary) socket_folder_to_remove_ = folder;
  socket_path_ = JoinPath(folder, "rank.sock");
  ASSIGN_OR_RETURN(const HostPort listen, ParseHostPort(options.listen_address), "--listen");
  const auto coordinator = ParseHostPort(options.coordinator_address);
  if (coordinator.ok() && OnlyThisMachineReaches(listen.host, coordinator->host)) {
    LogWarning("--listen ", options.listen_address,
               " is an address that no other machine reaches; ", "if the coordinator at ",
               options.coordinator_address,
               " is on another one, name an address of the network between them");
  }
  const AgentOptions agent_options = {.node_id = options.node_id,
                                      .num_devices = options.num_devices,
                                      .num_cores = options.num_cores,
                                      .host_memory_bytes = options.host_memory_bytes,
                                      .state_dir = options.state_dir,
                                      .programs = options.programs,
                                      .socket_path = socket_path_,
                                      .rank_listen = RankListenOptions(options, listen.host)};
  ASSIGN_OR_RETURN(agent_, Agent::Create(agent_options, registry_, queue_));
  PublishExpiries(options.credentials, agent::kCertificateExpiry, registry_);
  if (!options.metrics_address.empty()) {
    ASSIGN_OR_RETURN(metrics_server_, MetricsServer::Start(registry_, options.metrics_address));
    LogInfo("metrics on port ", metrics_server_->port());
  }
  RETURN_IF_ERROR(StartRankServer());
  RETURN_IF_ERROR(StartAgentServer(options));
  const LinkOptions link_options = {
      .coordinator_address = options.coordinator_address,
      .agent_address =
          HostPort{.host = ReachableHost(listen.host, options.node_id), .port = port_}.ToString(),
      .credentials = options.credentials,
      .node_id = options.node_id,
      .has_gpus = options.has_gpus,
      .num_devices = options.num_devices,
      .device_memory_bytes = options.device_memory_bytes,
      .on_registered =
          [this](bool is_registered) {
            agent_server_->GetHealthCheckService()->SetServingStatus("", is_registered);
          },
      .max_lease = options.max_lease};
  link_ = std::make_unique<CoordinatorLink>(link_options, *agent_, queue_, registry_);
  agent_->set_on_news([this] { link_->SendHeartbeatNow(); });
  LogInfo("listens on port ", port_, " with ", options.num_devices,
          options.has_gpus ? " GPUs" : " devices",
          options.credentials.is_tls() ? ", with TLS" : ", in clear text", "; reports to ",
          options.coordinator_address);
  return absl::OkStatus();
}

absl::Status AgentServer::LockStateFolder(const std::string& state_dir) {
  RETURN_IF_ERROR(MakeDirectories(state_dir));
  const std::string path = JoinPath(state_dir, "lock");
  state_lock_.Reset(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!state_lock_.is_open()) return ErrnoError(errno, absl::StrCat("cannot open ", path));
  if (flock(state_lock_.get(), LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
  return FailedPrecondition("state folder ", state_dir,
                            " is in use by another agent; give each its own --state-dir");
}

absl::Status AgentServer::StartRankServer() {
  rank_service_ = std::make_unique<RankServiceImpl>(*agent_);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(absl::StrCat("unix:", socket_path_), grpc::InsecureServerCredentials());
  builder.SetMaxReceiveMessageSize(kMaxRankReportBytes);
  builder.RegisterService(rank_service_.get());
  rank_server_ = builder.BuildAndStart();
  if (rank_server_ != nullptr) return absl::OkStatus();
  return Unavailable("cannot listen on ", socket_path_);
}

absl::Status AgentServer::StartAgentServer(const AgentServerOptions& options) {
  agent_service_ = std::make_unique<AgentServiceImpl>(*agent_, registry_);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  // Without this a second process could take the same port, and half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(options.listen_address,
                           options.credentials.OfServer(TlsClients::kWithCertificate), &port_);
  builder.SetMaxReceiveMessageSize(kMaxOrderBytes);
  grpc::ResourceQuota quota("agent");
  quota.SetMaxThreads(kMaxServerThreads);
  builder.SetResourceQuota(quota);
  builder.RegisterService(agent_service_.get());
  agent_server_ = builder.BuildAndStart();
  if (agent_server_ == nullptr || port_ == 0) {
    return Unavailable("cannot listen on ", options.listen_address, "; is the port in use?");
  }
  // Until the coordinator knows it, nothing can be run here. That is no reason to restart it.
  agent_server_->GetHealthCheckService()->SetServingStatus("", false);
  agent_server_->GetHealthCheckService()->SetServingStatus(kHealthOfProcess, true);
  return absl::OkStatus();
}

void AgentServer::Run() {
  std::thread ending([this] {
    agent_->WaitUntilDrained();
    link_->Flush(kFlushTimeout);
    agent_->EndLoop();
  });
  agent_->Run();
  ending.join();
}

AgentServer::~AgentServer() {
  link_.reset();
  if (agent_server_ != nullptr) agent_server_->Shutdown(Soon());
  if (rank_server_ != nullptr) rank_server_->Shutdown(Soon());
  if (!socket_folder_to_remove_.empty()) {
    unlink(socket_path_.c_str());
    rmdir(socket_folder_to_remove_.c_str());
  }
}

}  // namespace autosp::agent
