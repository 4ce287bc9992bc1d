// The rules between the keys of a job file.
#pragma once

#include <string>
#include <vector>

#include "compiler/config/cluster_spec.h"
#include "compiler/config/job_spec.h"

namespace autosp {

struct RuleViolation {
  std::string path;     // the key to change: "training.global_batch_size"
  std::string message;  // "7 is not a multiple of ...; set it to ..."
};

// Requires: every value is in the range that its key allows (config_keys.h).
std::vector<RuleViolation> FindRuleViolations(const JobSpec& spec);
std::vector<RuleViolation> FindRuleViolations(const ClusterSpec& spec);

}  // namespace autosp
