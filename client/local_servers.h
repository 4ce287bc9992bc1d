// A coordinator and an agent of this machine as child processes, for `autosp-cli run`.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/temporary_folder.h"
#include "common/subprocess.h"

namespace autosp {

struct LocalServersOptions {
  std::string program_folder;  // where autosp-coordinator and autosp-agent are
  int num_devices = 0;         // of the agent; 0: one per core
  std::function<bool()> is_interrupted;
};

// Both keep their state in a temporary folder and listen on ports that the system chose. They die
// with this process, however it ends; the agent takes its ranks along. Thread-compatible.
class LocalServers {
 public:
  // Returns when the node is ready for jobs, or CANCELLED once `is_interrupted` says so.
  static absl::StatusOr<std::unique_ptr<LocalServers>> Start(LocalServersOptions options);

  // Stops what still runs and removes the folder.
  ~LocalServers();
  LocalServers(const LocalServers&) = delete;
  LocalServers& operator=(const LocalServers&) = delete;

  const std::string& address() const { return address_; }

 private:
  explicit LocalServers(LocalServersOptions options) : options_(std::move(options)) {}

  absl::Status StartCoordinator();
  absl::Status StartAgent();
  absl::Status AwaitNode();

  // "127.0.0.1:PORT", once the process has written its port; its log when it ends before.
  absl::StatusOr<std::string> AwaitPort(const char* name, Subprocess& process);

  // Polls `is_done` until it says yes or there is no more time; an error when `process` ends.
  absl::Status Await(const char* name, Subprocess& process, const char* what,
                     const std::function<absl::StatusOr<bool>()>& is_done);

  const LocalServersOptions options_;
  std::optional<TemporaryFolder> folder_;  // before those who write to it
  std::string address_;
  std::optional<Subprocess> coordinator_;
  std::optional<Subprocess> agent_;
};

}  // namespace autosp
