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
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, absl::ToChronoNanoseconds(next_tick - clock.Steady()),
                        [this] { return HasWork(); });
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
  const std::lock_guard lock(mutex_);
  is_stopping_ = true;
  changed_.notify_all();
}

bool EventLoop::Post(std::function<void()> function) {
  const std::lock_guard lock(mutex_);
  // The last batch is taken under this lock after is_stopping_ was set, so nothing is lost between.
  if (is_stopping_) return false;
  queue_.push_back(std::move(function));
  changed_.notify_all();
  return true;
}

}  // namespace autosp::agent
