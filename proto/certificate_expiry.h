// Until when the certificates of a program are valid, as a metric.
#pragma once

#include "common/metrics.h"
#include "common/metrics_exporter.h"
#include "proto/credentials.h"

namespace autosp {

// Sets the gauge `expiry`, whose one label is the file, as the files are whenever metrics are asked
// for. Nothing without TLS. `registry` has the metric.
void PublishExpiries(const Credentials& credentials, const MetricDef& expiry,
                     MetricRegistry& registry);

}  // namespace autosp
