// The models and cases of tests/zoo as jobs, compiled without weights.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/planner/compile_job.h"

namespace autosp {

// "llama", ..., then "cases/alibi", ...
std::vector<std::string> ZooModelNames();
std::vector<std::string> ZooCaseNames();

absl::StatusOr<ImportedModel> ImportZoo(const std::string& name);
// Feeds every input as the equality tests do.
JobSpec ZooJob(const ImportedModel& model, int64_t batch, int64_t seq_len);

}  // namespace autosp
