#include "common/verification_result.h"

#include "absl/strings/str_format.h"

namespace autosp {

std::string VerificationResult::WorstText() const {
  return absl::StrFormat("%s has error %.2g, at most %.2g is allowed", worst, error, bound);
}

}  // namespace autosp
