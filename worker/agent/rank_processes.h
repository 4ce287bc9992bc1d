// The processes of an agent's ranks: started in groups of their own, dying with the agent, their
// output carried into logs.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/subprocess.h"
#include "worker/agent/attempt.h"
#include "worker/agent/log_pump.h"
#include "worker/agent/rank_log.h"

namespace autosp::agent {

// Thread-compatible; the agent's loop owns it.
class RankProcesses {
 public:
  using Id = std::pair<AttemptKey, Rank>;

  explicit RankProcesses(LogPump& pump) : pump_(pump) {}

  struct StartOptions {
    std::string program;
    std::string spec_path;
    std::string log_path;
    std::string working_directory;
    int listen_fd = -1;  // Given to the process; -1: none.
    // Called once on the log pump's thread, when all that the rank wrote is in its log.
    std::function<void()> on_log_closed;
  };
  // Returns the pid.
  absl::StatusOr<int64_t> Start(const Id& id, const StartOptions& options);

  // How the process ended, once; its log stays.
  std::optional<ProcessExit> TakeExit(const Id& id);
  // Of all processes, those that run.
  std::vector<Id> Running() const;
  // To the process group.
  void Signal(const Id& id, int signal_number);

  // The last `count` lines, at most kNumTailLines, oldest first; none when the rank was never
  // started here.
  std::vector<std::string> LogTail(const Id& id, size_t count) const;
  void ForgetLogs(const AttemptKey& key);

 private:
  LogPump& pump_;
  std::map<Id, Subprocess> processes_;
  std::map<Id, std::shared_ptr<RankLog>> logs_;
};

}  // namespace autosp::agent
