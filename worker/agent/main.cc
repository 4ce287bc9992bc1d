// autosp-agent: runs ranks on one node for a coordinator.

#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/log.h"
#include "common/process_setup.h"
#include "common/status_macros.h"
#include "common/version.h"
#include "compiler/config/cluster_spec.h"
#include "proto/tls_flags.h"
#include "worker/agent/agent_limits.h"
#include "worker/agent/agent_server.h"
#include "worker/agent/gpu_list.h"

namespace autosp::agent {
namespace {

struct Flags {
  std::string coordinator;
  std::string listen = "127.0.0.1:0";
  std::string port_file;
  std::string node_name;
  std::string device_kind = "cpu";
  int devices = 0;
  std::string state_dir = "autosp-agent-state";
  std::string rank_binary;
  std::string verify_binary;
  std::string rank_address;
  std::string rank_ports = "0";
  int metrics_port = -1;
  double lease_seconds = 15;
  TlsFiles tls;
};

std::string Hostname() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "localhost";
}

// The program that a flag names, or the one beside this one.
std::string ProgramOf(const std::string& flag, const char* name) {
  if (!flag.empty()) return std::filesystem::absolute(flag).string();
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / name).string();
}

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--coordinator", flags.coordinator, "Address of the coordinator, host:port")
      ->required();
  app.add_option("--listen", flags.listen, "Where to listen, host:port; port 0 takes a free one")
      ->capture_default_str();
  app.add_option("--port-file", flags.port_file, "File to write the port to, once it listens");
  app.add_option("--node-name", flags.node_name, "Name of this node; the host's name by default");
  app.add_option("--device-kind", flags.device_kind,
                 "What ranks compute on: cpu, or cuda for the GPUs of this node")
      ->capture_default_str()
      ->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--devices", flags.devices,
                 "Number of devices to offer; by default one per core, or every GPU")
      ->check(CLI::Range(1, kMaxDevices));
  app.add_option("--state-dir", flags.state_dir, "Folder for logs and running attempts")
      ->capture_default_str();
  app.add_option("--rank-binary", flags.rank_binary,
                 "Program to start for a rank; autosp-rank beside this one by default");
  app.add_option("--verify-binary", flags.verify_binary,
                 "Program that verifies the plan of a job with `verify`; autosp-verify beside this "
                 "one by default");
  app.add_option("--rank-address", flags.rank_address,
                 "Address of this node for ranks on other nodes, a host without a port; that of "
                 "--listen by default");
  app.add_option(
         "--rank-ports", flags.rank_ports,
         "Ports for ranks on other nodes, FIRST-LAST, one for each device; 0: any free ones")
      ->capture_default_str();
  app.add_option("--metrics-port", flags.metrics_port,
                 "Port for Prometheus, 0 for a free one; no metrics by default")
      ->check(CLI::Range(0, 65535));
  app.add_option("--lease-seconds", flags.lease_seconds,
                 "Kill all ranks when the coordinator is silent for this long; the coordinator may "
                 "ask for less")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 3600.0));
  AddTlsFlags(app, flags.tls, /*has_environment=*/false);
  app.set_version_flag("--version", kVersion);
}

// All GPUs, or the first `--devices` of them.
absl::Status OfferGpus(const Flags& flags, AgentServerOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<GpuInfo> gpus, ListGpus(options.programs.rank),
                   "--device-kind cuda");
  const auto num_gpus = static_cast<int>(gpus.size());
  if (flags.devices > num_gpus) {
    return InvalidArgument("--devices: ", flags.devices, " GPUs are to be offered, and there are ",
                           num_gpus);
  }
  options.has_gpus = true;
  options.num_devices = flags.devices > 0 ? flags.devices : num_gpus;
  options.device_memory_bytes = gpus[0].memory_bytes;
  for (const GpuInfo& gpu : gpus) {
    options.device_memory_bytes = std::min(options.device_memory_bytes, gpu.memory_bytes);
  }
  return absl::OkStatus();
}

absl::StatusOr<AgentServerOptions> OptionsFrom(const Flags& flags) {
  const NodeSpec local = LocalCluster().nodes.front();
  AgentServerOptions options;
  ASSIGN_OR_RETURN(options.node_id,
                   NodeId::Parse(flags.node_name.empty() ? Hostname() : flags.node_name),
                   "--node-name");
  options.coordinator_address = flags.coordinator;
  options.listen_address = flags.listen;
  ASSIGN_OR_RETURN(options.credentials, Credentials::ForServer(flags.tls));
  if (flags.metrics_port >= 0) {
    const std::string host = flags.listen.substr(0, flags.listen.rfind(':'));
    options.metrics_address = absl::StrCat(host, ":", flags.metrics_port);
  }
  options.num_cores = static_cast<int>(local.devices);
  options.num_devices = flags.devices > 0 ? flags.devices : options.num_cores;
  options.host_memory_bytes = local.device_memory_bytes * local.devices;
  options.device_memory_bytes = options.host_memory_bytes / options.num_devices;
  // Ranks run in folders of their own, so their paths must not depend on this one's.
  options.state_dir = std::filesystem::absolute(flags.state_dir).lexically_normal().string();
  options.programs = {.rank = ProgramOf(flags.rank_binary, "autosp-rank"),
                      .verify = ProgramOf(flags.verify_binary, "autosp-verify")};
  options.rank_address = flags.rank_address;
  ASSIGN_OR_RETURN(options.rank_ports, ParsePortRange(flags.rank_ports), "--rank-ports");
  options.max_lease = absl::Seconds(flags.lease_seconds);
  if (flags.device_kind == "cuda") RETURN_IF_ERROR(OfferGpus(flags, options));
  return options;
}

// SIGINT and SIGTERM end the agent: the first one asks the ranks, the second kills them. A thread
// waits for them, since little may be done in a signal handler.
class SignalWatcher {
 public:
  // Before any other thread exists, so that all of them leave the signals to the one that waits.
  SignalWatcher() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);  // A limit on file sizes is an error of the write, like a full disk.
  }
  ~SignalWatcher() {
    if (!thread_.joinable()) return;
    is_done_ = true;
    pthread_kill(thread_.native_handle(), SIGTERM);  // Ends the wait, nothing else.
    thread_.join();
  }
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;

  void Start(AgentServer& server) {
    thread_ = std::thread([this, &server] {
      int number = 0;
      while (sigwait(&signals_, &number) == 0 && !is_done_) {
        server.RequestShutdown(absl::StrCat("the agent received signal ", number));
      }
    });
  }

 private:
  sigset_t signals_;
  std::atomic<bool> is_done_ = false;
  std::thread thread_;
};

absl::Status Main(const Flags& flags) {
  std::unique_ptr<AgentServer> server;
  // Before any thread, also of the library that watches the files of certificates: a thread that
  // takes a signal by itself would end the agent. Ends before the server that it speaks to.
  SignalWatcher watcher;
  ASSIGN_OR_RETURN(const AgentServerOptions options, OptionsFrom(flags));
  InitLogging("agent", options.node_id.value());
  ASSIGN_OR_RETURN(server, AgentServer::Start(options));
  absl::Status written;
  if (!flags.port_file.empty()) {
    written = WriteFileAtomically(flags.port_file, absl::StrCat(server->port(), "\n"));
  }
  if (!written.ok()) server->RequestShutdown("nobody can find the port");
  watcher.Start(*server);
  server->Run();
  return WithContext(written, "--port-file");
}

}  // namespace
}  // namespace autosp::agent

int main(int argc, char** argv) {
  autosp::RaiseOpenFilesLimit();
  CLI::App app("Runs the ranks of jobs on this node for a coordinator.", "autosp-agent");
  autosp::agent::Flags flags;
  autosp::agent::AddFlags(app, flags);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = autosp::agent::Main(flags);
  if (status.ok()) return 0;
  autosp::LogError(status.message());
  return 1;
}
