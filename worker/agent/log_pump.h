// Carries what ranks write from their pipes into their logs, in one thread for all of them.

#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "common/file.h"
#include "worker/agent/rank_log.h"

namespace autosp::agent {

// Thread-safe. Must not be destroyed on its own thread (in `on_closed`).
class LogPump {
 public:
  static absl::StatusOr<std::unique_ptr<LogPump>> Start();
  ~LogPump();
  LogPump(const LogPump&) = delete;
  LogPump& operator=(const LogPump&) = delete;

  // Reads `pipe` to its end, then calls `on_closed` once, on the pump's thread. Both are dropped
  // when the pump ends first.
  void Add(UniqueFd pipe, std::shared_ptr<RankLog> log, std::function<void()> on_closed);

 private:
  struct Source {
    UniqueFd pipe;
    std::shared_ptr<RankLog> log;
    std::function<void()> on_closed;
  };

  explicit LogPump(UniqueFd wake) : wake_(std::move(wake)) {}
  void Loop();
  void Wake();
  // False at the end of the pipe.
  static bool ReadSome(Source& source);

  const UniqueFd wake_;  // An eventfd.
  std::mutex mutex_;     // Guards the next two.
  std::vector<Source> added_;
  bool is_stopping_ = false;
  std::thread thread_;
};

}  // namespace autosp::agent
