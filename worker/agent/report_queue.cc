#include "worker/agent/report_queue.h"

#include <algorithm>
#include <utility>

namespace autosp::agent {

bool ReportQueue::Push(v1::AttemptRankReport report) {
  absl::MutexLock lock(&mutex_);
  const bool is_full = report.has_step() && num_steps_ >= max_steps_;
  if (is_full) DropOldestStep();
  if (report.has_step()) ++num_steps_;
  queue_.push_back(std::move(report));
  return !is_full;
}

void ReportQueue::DropOldestStep() {
  const auto oldest = std::find_if(queue_.begin(), queue_.end(),
                                   [](const auto& report) { return report.has_step(); });
  if (oldest == queue_.end()) return;
  queue_.erase(oldest);
  --num_steps_;
}

std::vector<v1::AttemptRankReport> ReportQueue::Peek(size_t max_reports, absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto is_ready = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return HasReport(); };
  mutex_.AwaitWithTimeout(absl::Condition(&is_ready), timeout);
  if (!in_flight_.empty()) return in_flight_;
  while (!queue_.empty() && in_flight_.size() < max_reports) {
    if (queue_.front().has_step()) --num_steps_;
    in_flight_.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  return in_flight_;
}

void ReportQueue::Ack() {
  absl::MutexLock lock(&mutex_);
  in_flight_.clear();
}

void ReportQueue::Close() {
  absl::MutexLock lock(&mutex_);
  is_closed_ = true;
}

bool ReportQueue::IsEmpty() const {
  absl::MutexLock lock(&mutex_);
  return HasNone();
}

bool ReportQueue::HasReportOf(const v1::AttemptRef& attempt) const {
  const auto is_of_attempt = [&](const v1::AttemptRankReport& report) {
    return report.attempt().job_id() == attempt.job_id() &&
           report.attempt().generation() == attempt.generation();
  };
  absl::MutexLock lock(&mutex_);
  return std::any_of(in_flight_.begin(), in_flight_.end(), is_of_attempt) ||
         std::any_of(queue_.begin(), queue_.end(), is_of_attempt);
}

bool ReportQueue::WaitUntilEmpty(absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  const auto is_empty = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return HasNone(); };
  return mutex_.AwaitWithTimeout(absl::Condition(&is_empty), timeout);
}

bool ReportQueue::HasReport() const { return !in_flight_.empty() || !queue_.empty() || is_closed_; }

bool ReportQueue::HasNone() const { return in_flight_.empty() && queue_.empty(); }

}  // namespace autosp::agent
