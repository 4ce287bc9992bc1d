// autosp-rank: one process per device, started by the agent of its node.
//
// Exit codes: 0 finished; 1 failed; 2 wrong flags or spec; 143 stopped by a signal.

#include <ATen/Parallel.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "common/log.h"
#include "common/process_setup.h"
#include "common/version.h"
#include "worker/collectives/shared_memory_collectives.h"
#include "worker/executor/device_memory.h"
#include "worker/gpu/torch_gpu.h"
#include "worker/rank/make_reporter.h"
#include "worker/rank/rank_config_from_proto.h"
#include "worker/rank/rank_process.h"
#include "worker/rank/rank_threads.h"

namespace autosp {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitStopped = 143;  // as a shell says of SIGTERM

void SetThreads(const RankConfig& config) {
  const int num_threads =
      config.num_threads > 0 ? config.num_threads : ThreadsPerRank(config.local_world_size);
  at::set_num_threads(num_threads);
  at::set_num_interop_threads(1);
}

// Waits for SIGTERM and SIGINT on a thread of its own, where anything may be done. The second one
// ends the process.
class SignalWatcher {
 public:
  // Before any other thread exists, so that all of them leave the signals to this one.
  SignalWatcher() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);  // A limit on file sizes is an error of the write, like a full disk.
  }

  void Start(RankProcess& process, const std::string& shm_prefix) {
    std::thread([this, &process, shm_prefix] {
      int number = 0;
      sigwait(&signals_, &number);
      was_signaled_ = true;
      if (process.Stop(absl::StrCat("it was stopped by signal ", number))) {
        sigwait(&signals_, &number);
      } else if (!shm_prefix.empty()) {
        UnlinkSharedMemory(shm_prefix);
      }
      std::_Exit(kExitStopped);
    }).detach();
  }

  bool was_signaled() const { return was_signaled_; }

 private:
  sigset_t signals_;
  std::atomic<bool> was_signaled_ = false;
};

// As worker/agent/gpu_list.h reads it.
int PrintGpus() {
  const auto gpus = TorchGpu::List();
  if (!gpus.ok()) {
    std::cerr << gpus.status().message() << "\n";
    return kExitFailed;
  }
  nlohmann::json list = nlohmann::json::array();
  for (const TorchGpu::Info& gpu : *gpus) {
    list.push_back(
        {{"index", list.size()}, {"name", gpu.name}, {"memory_bytes", gpu.memory_bytes}});
  }
  std::cout << list.dump() << "\n";
  return 0;
}

int RunProcess(const RankConfig& config, const RankProcess::Options& options) {
  // Lives until the process ends, as the thread that uses them does.
  auto& watcher = *new SignalWatcher();
  auto& process = *new RankProcess(config, options);
  SetThreads(config);
  watcher.Start(process, config.shm_prefix);
  auto reporter = MakeReporter(config);
  if (!reporter.ok()) {
    LogError(reporter.status().message());
    return kExitFailed;
  }
  absl::Status status = process.Run(**reporter);
  const absl::Status closed = (*reporter)->Close();
  if (!closed.ok()) LogWarning("the agent may not have the last report: ", closed.message());
  if (status.ok()) {
    LogInfo("finished");
    return 0;
  }
  LogError(status.message());
  return watcher.was_signaled() ? kExitStopped : kExitFailed;
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  autosp::EnsurePassiveWaiting(argv);
  autosp::RaiseOpenFilesLimit();
  std::string spec_path;
  autosp::RankProcess::Options options;
  CLI::App app("Runs one rank of a job. Started by autosp-agent.");
  bool list_gpus = false;
  auto* list = app.add_flag("--list-gpus", list_gpus, "Print the GPUs of this machine, as JSON");
  app.add_option("--spec", spec_path, "RankSpec of rank.proto, as JSON")->excludes(list);
  std::vector<int> listen_fds;
  app.add_option("--listen-fd", listen_fds,
                 "Inherited socket on which ranks of other nodes reach this one; may be repeated");
  app.add_flag("--profile", options.profile,
               "Log at the end what each instruction took; the first step is not counted");
  app.set_version_flag("--version", autosp::kVersion);
  CLI11_PARSE(app, argc, argv);
  if (list_gpus) return autosp::PrintGpus();
  if (spec_path.empty()) {
    std::cerr << "autosp-rank: --spec is required\n";
    return autosp::kExitUsage;
  }
  autosp::InstallCountingAllocator();
  autosp::InitLogging("rank");
  auto config = autosp::ReadRankSpec(spec_path);
  if (!config.ok()) {
    autosp::LogError(config.status().message());
    return autosp::kExitUsage;
  }
  config->listen_fds = listen_fds;
  autosp::InitLogging("rank", absl::StrCat(config->rank));
  return autosp::RunProcess(*config, options);
}
