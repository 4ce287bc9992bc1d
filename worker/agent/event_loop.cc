#include "worker/agent/event_loop.h"

#include <algorithm>

#include "common/clock.h"

namespace autosp::agent {

void EventLoop::Run(absl::Duration tick_interval, const std::function<void()>& tick) {
  const Clock& clock = Clock::Real();
  absl::Duration next_tick = clock.Steady();
  while (true) {
    std::deque<std::function<void()>> batch;
    bool is_last = false;
    {
      absl::MutexLock lock(&mutex_);
      const auto has_work = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return HasWork(); };
      mutex_.AwaitWithTimeout(absl::Condition(&has_work), next_tick - clock.Steady());
      batch.swap(queue_);
      is_last = is_stopping_;
    }
    for (const auto& function : batch) function();
    if (is_last) return;
    if (clock.Steady() < next_tick) continue;
    tick();
    next_tick = clock.Steady() + tick_interval;
  }
}

void EventLoop::Stop() {
  absl::MutexLock lock(&mutex_);
  is_stopping_ = true;
}

bool EventLoop::Post(std::function<void()> function) {
  absl::MutexLock lock(&mutex_);
  // The last batch is taken under this lock after is_stopping_ was set, so nothing is lost between.
  if (is_stopping_) return false;
  queue_.push_back(std::move(function));
  return true;
}

}  // namespace autosp::agent
