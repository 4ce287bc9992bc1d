#include "worker/agent/agent_errors.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/error_info.h"
#include "common/errors.h"

namespace autosp::agent {

absl::Status WithReason(absl::Status status, absl::string_view reason) {
  return WithErrorInfo(std::move(status),
                       {.reason = std::string(reason), .subject = {}, .remedy = {}});
}

absl::Status StaleGenerationError(const AttemptKey& key, Generation newest) {
  return WithErrorInfo(
      FailedPrecondition("generation ", key.generation.value(), " of job ", key.job_id.value(),
                         " is stale: this node has seen generation ", newest.value()),
      {.reason = std::string(kReasonStaleGeneration),
       .subject = absl::StrCat("job ", key.job_id.value()),
       .remedy = {},
       .metadata = {{"generation", absl::StrCat(key.generation.value())},
                    {"newest_generation", absl::StrCat(newest.value())}}});
}

}  // namespace autosp::agent
