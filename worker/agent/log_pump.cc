#include "worker/agent/log_pump.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "common/errors.h"
#include "worker/agent/agent_limits.h"

namespace autosp::agent {

absl::StatusOr<std::unique_ptr<LogPump>> LogPump::Start() {
  UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.is_open()) return ErrnoError(errno, "cannot make an eventfd");
  std::unique_ptr<LogPump> pump(new LogPump(std::move(wake)));
  pump->thread_ = std::thread([raw = pump.get()] { raw->Loop(); });
  return pump;
}

LogPump::~LogPump() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  Wake();
  thread_.join();
}

void LogPump::Add(UniqueFd pipe, std::shared_ptr<RankLog> log, std::function<void()> on_closed) {
  {
    const std::lock_guard lock(mutex_);
    added_.push_back({std::move(pipe), std::move(log), std::move(on_closed)});
  }
  Wake();
}

void LogPump::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = write(wake_.get(), &one, sizeof(one));
}

bool LogPump::ReadSome(Source& source) {
  static thread_local std::vector<char> buffer(kLogChunkBytes);
  ssize_t count;
  do {
    count = read(source.pipe.get(), buffer.data(), buffer.size());
  } while (count < 0 && errno == EINTR);
  if (count <= 0) return false;
  source.log->Append({buffer.data(), static_cast<size_t>(count)});
  return true;
}

void LogPump::Loop() {
  std::vector<Source> sources;
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      if (is_stopping_) return;
      for (Source& source : added_) sources.push_back(std::move(source));
      added_.clear();
    }
    std::vector<pollfd> polls;
    for (const Source& source : sources) polls.push_back({source.pipe.get(), POLLIN, 0});
    polls.push_back({wake_.get(), POLLIN, 0});
    if (poll(polls.data(), polls.size(), -1) < 0) continue;
    uint64_t ignored;
    if (polls.back().revents != 0 && read(wake_.get(), &ignored, sizeof(ignored)) < 0) continue;
    // From the back, so that removal does not move what is still to be looked at.
    for (size_t i = sources.size(); i-- > 0;) {
      if (polls[i].revents == 0 || ReadSome(sources[i])) continue;
      const auto on_closed = std::move(sources[i].on_closed);
      sources.erase(sources.begin() + static_cast<ptrdiff_t>(i));
      on_closed();
    }
  }
}

}  // namespace autosp::agent
