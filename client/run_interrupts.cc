#include "client/run_interrupts.h"

namespace autosp {

bool RunInterrupts::is_interrupted() {
  const std::lock_guard lock(mutex_);
  return count_ > 0;
}

void RunInterrupts::BeginSubmission(CoordinatorClient* client) {
  const std::lock_guard lock(mutex_);
  client_ = client;
  if (count_ > 0) client_->CancelCalls();
}

void RunInterrupts::BeginJob(const std::string& address, const std::string& job_id) {
  const std::lock_guard lock(mutex_);
  address_ = address;
  job_id_ = job_id;
  // One that came while the answer was on its way.
  if (count_ > 0) CancelJob();
}

void RunInterrupts::EndJob() {
  const std::lock_guard lock(mutex_);
  client_ = nullptr;
}

void RunInterrupts::OnInterrupt(int count) {
  const std::lock_guard lock(mutex_);
  count_ = count;
  if (client_ == nullptr) return;
  const bool can_be_watched = count == 1 && !job_id_.empty() && CancelJob();
  if (!can_be_watched) client_->CancelCalls();
}

bool RunInterrupts::CancelJob() {
  // A client of its own: the other one may be in the middle of its streams.
  return CoordinatorClient(address_).CancelJob(job_id_, "interrupted by the user").ok();
}

}  // namespace autosp
