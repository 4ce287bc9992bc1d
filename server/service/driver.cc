#include "server/service/driver.h"

#include <chrono>

#include "common/log.h"
#include "common/status_macros.h"
#include "proto/shutting_down.h"
#include "server/service/limits.h"

namespace autosp {

CoordinatorDriver::CoordinatorDriver(CoordinatorOptions options, std::vector<Job> active,
                                     JobStore& store, MetricRegistry& metrics, Clock& clock)
    : store_(store),
      clock_(clock),
      start_time_(clock.Now()),
      start_steady_(clock.Steady()),
      coordinator_(std::move(options), std::move(active), &store, start_time_),
      recorder_(metrics) {}

CoordinatorDriver::~CoordinatorDriver() { Stop(); }

void CoordinatorDriver::Start(EffectSink& sink) {
  {
    const std::lock_guard lock(mutex_);
    sink_ = &sink;
  }
  ticker_ = std::thread([this] { Tick(); });
}

void CoordinatorDriver::Stop() {
  {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
    sink_ = nullptr;
  }
  changed_.notify_all();
  if (ticker_.joinable()) ticker_.join();
}

// Leases and records in one time that does not jump: the wall clock at the start, and steady since.
absl::Time CoordinatorDriver::Now() const {
  return start_time_ + (clock_.Steady() - start_steady_);
}

Decision CoordinatorDriver::Handle(const Event& event, const JobInputs* inputs) {
  const std::lock_guard lock(mutex_);
  if (is_stopped_) {
    Decision refusal;
    refusal.status = ShuttingDown();
    return refusal;
  }
  Coordinator next = coordinator_;
  Decision decision = next.Step(event, Now());
  if (!decision.status.ok()) return decision;
  if (absl::Status stored = StoreDecision(decision, inputs); !stored.ok()) {
    // One job of which something cannot be written must not cost its node the lease of all others.
    const auto* heartbeat = std::get_if<AgentHeartbeat>(&event);
    if (heartbeat != nullptr) return coordinator_.RenewLease(*heartbeat, Now());
    Decision failure;
    failure.status = std::move(stored);
    return failure;
  }
  coordinator_ = std::move(next);
  Log(decision);
  recorder_.Record(decision, coordinator_.now());
  recorder_.RecordState(coordinator_);
  if (!decision.history.empty()) changed_.notify_all();
  for (const Effect& effect : decision.effects) {
    if (sink_ != nullptr) sink_->Perform(effect);
  }
  return decision;
}

absl::Status CoordinatorDriver::StoreDecision(const Decision& decision, const JobInputs* inputs) {
  if (decision.changed_jobs.empty()) return absl::OkStatus();
  const absl::Duration start = clock_.Steady();
  absl::Status status = store_.Apply(decision, inputs);
  recorder_.RecordWrite(status.ok(), clock_.Steady() - start);
  // A full disk would say the same ten times a second.
  const std::string error(status.message());
  if (!status.ok() && error != last_store_error_) LogError("a decision was not stored: ", error);
  last_store_error_ = error;
  return status;
}

void CoordinatorDriver::Log(const Decision& decision) {
  if (!decision.reason.empty()) LogInfo(decision.reason);
}

void CoordinatorDriver::Tick() {
  const auto interval = absl::ToChronoMilliseconds(kTickInterval);
  std::unique_lock lock(mutex_);
  while (!is_stopped_) {
    lock.unlock();
    Handle(autosp::Tick());
    lock.lock();
    recorder_.Prune(coordinator_.now());
    const auto wake_at = std::chrono::steady_clock::now() + interval;
    changed_.wait_until(lock, wake_at, [this] { return is_stopped_; });
  }
}

absl::Status CoordinatorDriver::CheckRoom(const std::string& job_name) const {
  const std::lock_guard lock(mutex_);
  return coordinator_.CheckRoom(job_name);
}

std::vector<NodeView> CoordinatorDriver::Nodes() const {
  const std::lock_guard lock(mutex_);
  return ViewNodes(coordinator_);
}

void CoordinatorDriver::WaitForHistory(const JobId& job, int64_t sequence,
                                       absl::Duration timeout) const {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, absl::ToChronoMilliseconds(timeout), [&] {
    auto found = coordinator_.jobs().find(job);
    // A job that is not active any more has all of its history.
    return is_stopped_ || found == coordinator_.jobs().end() ||
           found->second.last_sequence > sequence;
  });
}

bool CoordinatorDriver::is_stopped() const {
  const std::lock_guard lock(mutex_);
  return is_stopped_;
}

void CoordinatorDriver::RecordPrediction(const JobId& job,
                                         const std::map<std::string, int64_t>& peak_bytes) {
  const std::lock_guard lock(mutex_);
  recorder_.RecordPrediction(job, peak_bytes);
}

}  // namespace autosp
