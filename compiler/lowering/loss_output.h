// The output that is trained. A forward returns others beside it (logits, parts of the loss,
// numbers to log), which a step computes for nobody: no plan has them.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/ir/graph.h"

namespace autosp {

// `wanted`: its name, or its index in digits; empty: the only floating point scalar.
// Error: there is none, or more than one.
absl::StatusOr<size_t> FindLossOutput(const Graph& graph, const std::string& wanted);

// "%mean of model.head: aten.mean.default (%mean) at model.py:12".
std::string NameOfLoss(const Graph& graph, ValueId loss);
// An error: the loss depends on no parameter that is trained.
absl::Status HasNothingToLearn(const Graph& graph, ValueId loss);

// Drops all other results. What the step writes to buffers stays. Parameters that no node reads
// any more are not trained, as PyTorch's optimizers leave out what has no gradient.
void KeepLoss(size_t loss, Graph& graph);

}  // namespace autosp
