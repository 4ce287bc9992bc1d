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
#include "common/file.h"
#include "common/subprocess.h"
#include "worker/agent/attempt.h"
#include "worker/agent/log_pump.h"
#include "worker/agent/rank_log.h"

namespace autosp::agent {

// Thread-compatible; the agent's loop owns it. Only Spawn may wait, for a slow disk or a busy
// machine, and it is for a thread beside the loop.
class RankProcesses {
 public:
  using Id = std::pair<AttemptKey, Rank>;

  explicit RankProcesses(LogPump& pump) : pump_(pump) {}

  struct StartOptions {
    std::string program;
    std::string spec_path;
    std::string log_path;
    std::string working_directory;
    std::vector<int> listen_fds;  // Given to the process.
  };
  // A process that nobody owns yet: it is killed where it is dropped.
  struct Spawned {
    Subprocess process;
    UniqueFd pipe;
    std::shared_ptr<RankLog> log;
  };
  static absl::StatusOr<Spawned> Spawn(const StartOptions& options);
  // Calls `on_log_closed` once, on the log pump's thread, when all that the rank wrote is in its
  // log.
  void Adopt(const Id& id, Spawned spawned, std::function<void()> on_log_closed);

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
