// The coordinator with a clock, a disk and hands: threads live here and in agent_commander.h.
//
// Handle() steps a copy of the state machine, makes the decision durable, keeps the copy, and then
// has the effects performed. When the decision cannot be stored, the copy is thrown away and the
// caller gets the error: nothing has happened. Only the lease of an agent is renewed all the same.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "common/clock.h"
#include "server/coordinator/coordinator.h"
#include "server/service/metrics_recorder.h"
#include "server/service/node_view.h"
#include "server/store/job_store.h"

namespace autosp {

// Performs effects without keeping the caller waiting. What comes of them arrives at the driver as
// CommandDone and AgentProbed.
class EffectSink {
 public:
  virtual ~EffectSink() = default;
  virtual void Perform(const Effect& effect) = 0;
};

// Thread-safe.
class CoordinatorDriver {
 public:
  // All references outlive the driver. `active` is what the store holds.
  CoordinatorDriver(CoordinatorOptions options, std::vector<Job> active, JobStore& store,
                    MetricRegistry& metrics, Clock& clock);
  ~CoordinatorDriver();

  // Begins to tick. Requires: `sink` outlives Stop().
  void Start(EffectSink& sink);

  // No ticks and no effects from here on; waiting callers come back. Ranks are left running.
  void Stop();

  // One event. `inputs` belong to the job of a JobSubmitted.
  Decision Handle(const Event& event, const JobInputs* inputs = nullptr);

  // Whether another job would be taken now, as Coordinator::CheckRoom says.
  absl::Status CheckRoom(const std::string& job_name) const;

  std::vector<NodeView> Nodes() const;

  // Waits until `job` has history after `sequence`, the time is over, or the driver is stopped.
  void WaitForHistory(const JobId& job, int64_t sequence, absl::Duration timeout) const;

  bool is_stopped() const;

  void RecordPrediction(const JobId& job, const std::map<std::string, int64_t>& peak_bytes);

 private:
  absl::Time Now() const;
  void Tick();
  absl::Status StoreDecision(const Decision& decision, const JobInputs* inputs);
  void Log(const Decision& decision);

  JobStore& store_;
  Clock& clock_;
  const absl::Time start_time_;
  const absl::Duration start_steady_;

  mutable std::mutex mutex_;  // Guards what follows.
  mutable std::condition_variable changed_;
  Coordinator coordinator_;
  MetricsRecorder recorder_;
  EffectSink* sink_ = nullptr;
  bool is_stopped_ = false;
  std::string last_store_error_;

  std::thread ticker_;
};

}  // namespace autosp
