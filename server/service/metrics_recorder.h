// Turns decisions into metrics.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "common/metrics_exporter.h"
#include "server/coordinator/coordinator.h"
#include "server/coordinator/decision.h"

namespace autosp {

// Thread-compatible: the driver calls it under its lock.
class MetricsRecorder {
 public:
  // The registry has the metrics of server/metrics.h and outlives the recorder.
  explicit MetricsRecorder(MetricRegistry& registry);

  // A stored decision.
  void Record(const Decision& decision, absl::Time now);

  // Counts by state, and which jobs run, after any event.
  void RecordState(const Coordinator& coordinator);

  void RecordPrediction(const JobId& job, const std::map<std::string, int64_t>& peak_bytes);
  void RecordWrite(bool is_ok, absl::Duration duration);

  // Forgets jobs that ended kMetricsRetention ago.
  void Prune(absl::Time now);

 private:
  void RecordEntry(const HistoryEntry& entry, absl::Time now);
  void RecordStep(const std::string& job, const StepReport& report);
  void RecordFlops(const Job& job);

  MetricRegistry& registry_;
  std::deque<std::pair<absl::Time, std::string>> ended_;  // by time
};

}  // namespace autosp
