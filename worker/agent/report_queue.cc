#include "worker/agent/report_queue.h"

#include <algorithm>
#include <utility>

namespace autosp::agent {

bool ReportQueue::Push(v1::AttemptRankReport report) {
  const std::lock_guard lock(mutex_);
  const bool is_full = report.has_step() && num_steps_ >= max_steps_;
  if (is_full) DropOldestStep();
  if (report.has_step()) ++num_steps_;
  queue_.push_back(std::move(report));
  changed_.notify_all();
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
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [this] { return HasReport(); });
  if (!in_flight_.empty()) return in_flight_;
  while (!queue_.empty() && in_flight_.size() < max_reports) {
    if (queue_.front().has_step()) --num_steps_;
    in_flight_.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  return in_flight_;
}

void ReportQueue::Ack() {
  const std::lock_guard lock(mutex_);
  in_flight_.clear();
  changed_.notify_all();
}

void ReportQueue::Close() {
  const std::lock_guard lock(mutex_);
  is_closed_ = true;
  changed_.notify_all();
}

bool ReportQueue::IsEmpty() const {
  const std::lock_guard lock(mutex_);
  return HasNone();
}

bool ReportQueue::HasReportOf(const v1::AttemptRef& attempt) const {
  const auto is_of_attempt = [&](const v1::AttemptRankReport& report) {
    return report.attempt().job_id() == attempt.job_id() &&
           report.attempt().generation() == attempt.generation();
  };
  const std::lock_guard lock(mutex_);
  return std::any_of(in_flight_.begin(), in_flight_.end(), is_of_attempt) ||
         std::any_of(queue_.begin(), queue_.end(), is_of_attempt);
}

bool ReportQueue::WaitUntilEmpty(absl::Duration timeout) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [this] { return HasNone(); });
}

bool ReportQueue::HasReport() const { return !in_flight_.empty() || !queue_.empty() || is_closed_; }

bool ReportQueue::HasNone() const { return in_flight_.empty() && queue_.empty(); }

}  // namespace autosp::agent
