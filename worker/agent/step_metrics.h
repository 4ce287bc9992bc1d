// A rank's report of a step, as metrics.

#pragma once

#include "absl/time/time.h"
#include "autosp/v1/common.pb.h"
#include "common/ids.h"
#include "common/metrics_exporter.h"
#include "worker/agent/attempt_table.h"

namespace autosp::agent {

// Makes the counters that alerts watch exist before their first event.
void DeclareCounters(MetricRegistry& registry);

void RecordStep(const JobId& job_id, Rank rank, const v1::StepReport& step, absl::Time now,
                MetricRegistry& registry);

// What the table says of the node.
void RecordTable(const AttemptTable& table, MetricRegistry& registry);

}  // namespace autosp::agent
