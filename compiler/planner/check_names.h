// Holds the names that a job uses against those that its model has.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "compiler/config/job_spec.h"
#include "compiler/ir/graph.h"

namespace autosp {

// Refuses keys of data.inputs that name no input, patterns of model.frozen and model.no_decay that
// match no parameter, and a model.loss_output that is no scalar output: each would be ignored, and
// something else trained than was meant. One line per mistake, each beginning with its key.
absl::Status CheckNames(const Graph& graph, const JobSpec& job);

}  // namespace autosp
