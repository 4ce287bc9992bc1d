// One thread that owns everything of an agent that changes. Others hand it functions to run.

#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <type_traits>
#include <utility>

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
    // Shared, because the loop may still be inside of it when the caller has its result.
    const auto promise = std::make_shared<std::promise<std::invoke_result_t<Function>>>();
    auto result = promise->get_future();
    const bool is_posted = Post([&function, promise] { promise->set_value(function()); });
    if (!is_posted) return Unavailable("the agent is ending");
    return result.get();
  }

 private:
  bool HasWork() const { return !queue_.empty() || is_stopping_; }

  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool is_stopping_ = false;
};

}  // namespace autosp::agent
