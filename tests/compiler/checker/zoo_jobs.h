// The models and cases of tests/zoo as jobs, compiled without weights.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/planner/compile_job.h"
#include "tests/zoo/zoo_archives.h"

namespace autosp {

// "llama", ..., then "cases/alibi", ...
std::vector<std::string> ZooModelNames();
std::vector<std::string> ZooCaseNames();

// Feeds every input as the equality tests do.
JobSpec ZooJob(const ImportedModel& model, int64_t batch, int64_t seq_len);

}  // namespace autosp
