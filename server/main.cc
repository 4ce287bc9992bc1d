// autosp-coordinator: takes jobs, plans them, runs them on agents.
#include <pthread.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/bytes.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/log.h"
#include "common/process_setup.h"
#include "common/status_macros.h"
#include "common/version.h"
#include "compiler/config/cluster_spec.h"
#include "compiler/config/job_yaml.h"
#include "compiler/planner/compile_job.h"
#include "compiler/planner/verification.h"
#include "proto/tls_flags.h"
#include "server/service/compile_process.h"
#include "server/service/coordinator_server.h"

namespace autosp {
namespace {

struct Flags {
  std::string listen = "127.0.0.1:7070";
  std::string port_file;
  std::string state_dir = "autosp-coordinator-state";
  std::string cluster;
  int metrics_port = -1;
  double lease_seconds = 15;
  double hang_seconds = 300;
  double setup_seconds = 3600;
  size_t max_jobs = CoordinatorOptions().max_jobs;
  double compile_seconds = absl::ToDoubleSeconds(CompileLimits().time);
  std::string compile_memory;
  TlsFiles tls;
  std::string tls_clients = "certificate";
};

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--listen", flags.listen, "Where to listen, host:port; port 0 takes a free one")
      ->capture_default_str();
  app.add_option("--port-file", flags.port_file, "File to write the port to, once it listens");
  app.add_option("--state-dir", flags.state_dir, "Folder where jobs are kept")
      ->capture_default_str();
  app.add_option("--cluster", flags.cluster,
                 "Cluster file; without one, any agent may register and brings its devices");
  app.add_option("--metrics-port", flags.metrics_port,
                 "Port for Prometheus, 0 for a free one; no metrics by default")
      ->check(CLI::Range(0, 65535));
  app.add_option("--lease-seconds", flags.lease_seconds,
                 "An agent that is silent for this long is lost; it has stopped its ranks by then")
      ->capture_default_str()
      ->check(CLI::Range(0.5, 3600.0));
  app.add_option(
         "--hang-seconds", flags.hang_seconds,
         "A job without a step for this long, or for ten of its steps if that is longer, is "
         "hung; it starts again from its last checkpoint")
      ->capture_default_str()
      ->check(CLI::Range(1.0, 1e7));
  app.add_option(
         "--setup-seconds", flags.setup_seconds,
         "The same before the first step, when ranks load weights or a checkpoint, and after "
         "the last, when they write the model")
      ->capture_default_str()
      ->check(CLI::Range(1.0, 1e7));
  app.add_option("--max-jobs", flags.max_jobs,
                 "Jobs that wait or run at a time; more are refused until some have ended")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--compile-seconds", flags.compile_seconds,
                 "A submission that takes longer to plan is refused")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 1e7));
  app.add_option("--compile-memory", flags.compile_memory,
                 "A submission that takes more memory to plan is refused; by default two fifths of "
                 "the memory of this machine or control group, since two are planned at a time");
  AddTlsFlags(app, flags.tls, /*has_environment=*/false);
  app.add_option("--tls-clients", flags.tls_clients,
                 "Who may call with TLS: certificate, who has one of the CA; any, also others")
      ->capture_default_str()
      ->check(CLI::IsMember({"certificate", "any"}));
  app.set_version_flag("--version", kVersion);
}

absl::StatusOr<CompileLimits> LimitsFrom(const Flags& flags) {
  CompileLimits limits;
  limits.time = absl::Seconds(flags.compile_seconds);
  if (flags.compile_memory.empty()) {
    const NodeSpec machine = LocalCluster().nodes.front();
    limits.memory_bytes = CompileMemoryOf(machine.device_memory_bytes * machine.devices);
    return limits;
  }
  ASSIGN_OR_RETURN(limits.memory_bytes, ParseBytes(flags.compile_memory), "--compile-memory");
  if (limits.memory_bytes > 0) return limits;
  return InvalidArgument("--compile-memory: ", flags.compile_memory,
                         " leaves nothing to plan with; give more, 4GiB say");
}

absl::StatusOr<CoordinatorServerOptions> OptionsFrom(const Flags& flags) {
  CoordinatorServerOptions options;
  options.listen_address = flags.listen;
  options.state_dir = std::filesystem::absolute(flags.state_dir).lexically_normal().string();
  options.coordinator = OptionsForLease(absl::Seconds(flags.lease_seconds));
  options.coordinator.hang_timeout = absl::Seconds(flags.hang_seconds);
  options.coordinator.setup_timeout = absl::Seconds(flags.setup_seconds);
  options.coordinator.max_jobs = flags.max_jobs;
  ASSIGN_OR_RETURN(options.credentials, Credentials::ForServer(flags.tls));
  if (flags.tls_clients == "any") options.tls_clients = TlsClients::kAny;
  if (flags.metrics_port >= 0) {
    const std::string host = flags.listen.substr(0, flags.listen.rfind(':'));
    options.metrics_address = absl::StrCat(host, ":", flags.metrics_port);
  }
  if (flags.cluster.empty()) return options;
  ASSIGN_OR_RETURN(const std::string text, ReadFile(flags.cluster, kMaxConfigBytes), "--cluster");
  ASSIGN_OR_RETURN(options.cluster, ParseClusterYaml(text, flags.cluster));
  return options;
}

// SIGINT and SIGTERM, from before the first thread until Wait() has had one.
class EndSignals {
 public:
  EndSignals() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);  // A limit on file sizes is an error of the write, like a full disk.
  }

  void Wait() {
    int number = 0;
    sigwait(&signals_, &number);
    LogInfo("ends after signal ", number, "; ranks run on for their lease");
  }

 private:
  sigset_t signals_;
};

absl::Status Main(const Flags& flags) {
  EndSignals signals;
  ASSIGN_OR_RETURN(const CoordinatorServerOptions options, OptionsFrom(flags));
  ASSIGN_OR_RETURN(const CompileLimits limits, LimitsFrom(flags));
  ASSIGN_OR_RETURN(const std::unique_ptr<CoordinatorServer> server,
                   CoordinatorServer::Start(options, InChildProcess(limits)));
  LogInfo("listens on port ", server->port(),
          options.credentials.is_tls() ? " with TLS" : " in clear text", ", state in ",
          options.state_dir);
  if (server->metrics_port() != 0) LogInfo("metrics on port ", server->metrics_port());
  if (!flags.port_file.empty()) {
    RETURN_IF_ERROR(WithContext(
        WriteFileAtomically(flags.port_file, absl::StrCat(server->port(), "\n")), "--port-file"));
  }
  signals.Wait();
  ExitAfter(kEndPatience);
  return absl::OkStatus();
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  if (autosp::IsCompileChild(argc, argv)) {
    return autosp::RunCompileChild(argv, {autosp::CompileJob, autosp::VerifyPlanned});
  }
  autosp::RaiseOpenFilesLimit();
  autosp::InitLogging("coordinator");
  CLI::App app("Takes training jobs, plans them, and runs them on agents.", "autosp-coordinator");
  autosp::Flags flags;
  autosp::AddFlags(app, flags);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = autosp::Main(flags);
  if (status.ok()) return 0;
  autosp::LogError(status.message());
  return 1;
}
