// One thread that owns everything of an agent that changes. Others hand it functions to run.

#pragma once

#include <deque>
#include <functional>
#include <type_traits>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/errors.h"

namespace autosp::agent {

// Thread-safe, but for Run.
class EventLoop {
 public:
  // Runs what is posted, in order, and `tick` about every `tick_interval`. Returns after Stop, once
  // everything that was posted before it has run.
  void Run(absl::Duration tick_interval, const std::function<void()>& tick);
  void Stop();

  // False when the loop has stopped; the function will not run.
  bool Post(std::function<void()> function);

  // Runs `function` on the loop and returns its result, a Status or a StatusOr. UNAVAILABLE when
  // the loop has stopped. Not from the loop's own thread: it would wait for itself.
  template <typename Function>
  std::invoke_result_t<Function> Call(Function function) {
    std::invoke_result_t<Function> result = Unavailable("the agent is ending");
    absl::Notification done;
    const bool is_posted = Post([&] {
      result = function();
      done.Notify();
    });
    if (is_posted) done.WaitForNotification();
    return result;
  }

 private:
  bool HasWork() const { return !queue_.empty() || is_stopping_; }

  absl::Mutex mutex_;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mutex_);
  bool is_stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace autosp::agent
