// Keeps the values of declared metrics and serves them to Prometheus.
//
//   MetricRegistry registry(kAllMetrics);
//   registry.Increment(kJobTransitionsTotal, {"queued", "running"});
//   ASSIGN_OR_RETURN(auto server, MetricsServer::Start(registry, "0.0.0.0:9464"));
//
// A value for a metric that is not in the list, of another kind, or with another number of labels,
// is a bug and aborts.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/metrics.h"

namespace autosp {

using LabelValues = std::vector<std::string>;  // In the order of MetricDef::labels.

// Thread-safe.
class MetricRegistry {
 public:
  // Requires: CheckMetricDefs(defs) is ok; the declarations outlive the registry.
  explicit MetricRegistry(absl::Span<const MetricDef* const> defs);
  ~MetricRegistry();
  MetricRegistry(const MetricRegistry&) = delete;
  MetricRegistry& operator=(const MetricRegistry&) = delete;

  // Makes a series exist before its first event. Prometheus sees no increase in a counter that
  // appears with its first event, so an alert on it would miss exactly that one.
  void Declare(const MetricDef& def, const LabelValues& labels);

  // Counters. Requires: by >= 0.
  void Increment(const MetricDef& def, const LabelValues& labels, double by = 1);

  // Gauges.
  void Set(const MetricDef& def, const LabelValues& labels, double value);

  // Histograms.
  void Observe(const MetricDef& def, const LabelValues& labels, double value);

  // Forgets every series with this value of this label: a job that has left must not stay on the
  // dashboard, nor its labels in memory.
  void RemoveSeries(absl::string_view label, absl::string_view value);

  // `refresh` sets what nothing else would: it runs before each answer, on the thread that answers,
  // and must be quick.
  void BeforeAnswers(std::function<void()> refresh);

  // What /metrics answers, in Prometheus's text form.
  std::string Render() const;

 private:
  friend class MetricsServer;
  struct State;
  std::shared_ptr<State> state_;
};

// Answers GET /metrics until destroyed.
class MetricsServer {
 public:
  // `address` is host:port; port 0 takes any free one. The registry may go first.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const MetricRegistry& registry,
                                                              const std::string& address);
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  int port() const;

 private:
  struct Impl;
  explicit MetricsServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace autosp
