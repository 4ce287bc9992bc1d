#include "proto/certificate_expiry.h"

#include <string>

#include "absl/time/time.h"

namespace autosp {

void PublishExpiries(const Credentials& credentials, const MetricDef& expiry,
                     MetricRegistry& registry) {
  registry.BeforeAnswers([credentials, &expiry, &registry] {
    for (const auto& [file, time] : credentials.Expiries()) {
      registry.Set(expiry, {file}, static_cast<double>(absl::ToUnixSeconds(time)));
    }
  });
}

}  // namespace autosp
