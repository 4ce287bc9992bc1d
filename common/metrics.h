// Metrics as declarations. A folder that measures something declares it once, as a constant, and
// lists it in an array; the exporter, docs/metrics.md and the dashboard check all read that array.
//
//   inline constexpr MetricDef kStepDuration = {
//       .name = "autosp_step_duration_seconds",
//       .kind = MetricKind::kHistogram,
//       .labels = {"job_id"},
//       .help = "Wall time of one training step on rank 0.",
//       .buckets = kStepSecondsBuckets,
//   };
//   inline constexpr std::array kAllMetrics = {&kJobTransitionsTotal, &kStepDuration};

#pragma once

#include <array>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace autosp {

enum class MetricKind { kCounter, kGauge, kHistogram };

absl::string_view MetricKindName(MetricKind kind);

inline constexpr size_t kMaxMetricLabels = 6;

// Upper bounds of histogram buckets, in seconds.
inline constexpr std::array kRpcSecondsBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                  0.1,   0.25,   0.5,   1.0,  2.5,   10.0};
inline constexpr std::array kStepSecondsBuckets = {0.05, 0.1,  0.25, 0.5,  1.0,   2.5,
                                                   5.0,  10.0, 30.0, 60.0, 120.0, 300.0};

struct MetricDef {
  absl::string_view name;  // autosp_<thing>_<unit>[_total], base units: seconds, bytes.
  MetricKind kind = MetricKind::kGauge;
  std::array<absl::string_view, kMaxMetricLabels> labels = {};  // Unused ones stay empty.
  absl::string_view help;                                       // One sentence; units and values.
  absl::Span<const double> buckets = {};                        // Of a histogram, ascending.

  absl::Span<const absl::string_view> label_names() const;
};

// The rules that every list keeps: names and units as above, no name twice, a counter ends in
// "_total" and nothing else does, help is a sentence, a histogram has ascending buckets.
absl::Status CheckMetricDefs(absl::Span<const MetricDef* const> defs);

// The Markdown table of docs/metrics.md, in the order of the list.
std::string MetricsMarkdown(absl::Span<const MetricDef* const> defs);

}  // namespace autosp
