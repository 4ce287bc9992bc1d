// What waits to be told to the coordinator. While it is away the queue is bounded: reports of steps
// give way to newer ones, reports of states (started, finished, lost, ...) are always kept, and
// they are few: a handful for each rank.

#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "absl/time/time.h"
#include "autosp/v1/agent.pb.h"

namespace autosp::agent {

// Thread-safe; one consumer.
class ReportQueue {
 public:
  explicit ReportQueue(size_t max_steps) : max_steps_(max_steps) {}

  // False when the oldest step report was dropped for it.
  bool Push(v1::AttemptRankReport report);

  // The oldest reports, in order; waits up to `timeout` for one. The same ones again, until Ack.
  // Empty at the timeout and after Close.
  std::vector<v1::AttemptRankReport> Peek(size_t max_reports, absl::Duration timeout);
  // The reports of the last Peek have arrived.
  void Ack();

  void Close();
  // Nothing is queued or in flight.
  bool IsEmpty() const;
  // A report of `attempt` is queued or in flight.
  bool HasReportOf(const v1::AttemptRef& attempt) const;
  // False at the timeout.
  bool WaitUntilEmpty(absl::Duration timeout) const;

 private:
  // Require: mutex_ is held.
  bool HasReport() const;
  bool HasNone() const;
  void DropOldestStep();

  const size_t max_steps_;

  mutable std::mutex mutex_;  // Guards what follows.
  mutable std::condition_variable changed_;
  std::deque<v1::AttemptRankReport> queue_;
  std::vector<v1::AttemptRankReport> in_flight_;
  size_t num_steps_ = 0;
  bool is_closed_ = false;
};

}  // namespace autosp::agent
