// The sizes of a job against those that the model was exported for.
#pragma once

#include "absl/status/status.h"
#include "compiler/passes/pass.h"

namespace autosp {

// Export takes the range of a dynamic size for granted: of `if length > 4096:` only one branch is
// in the graph of a model that was exported for up to 4096 tokens, and nothing in it says so. So a
// length outside of the range is refused. A batch outside of its range is warned of: ranks see a
// part of it at a time, and what a model does per sample does not ask for it.
//
// Requires: `factors` have the sizes of the job, `graph` still its symbols.
absl::Status CheckSizeRanges(const Graph& graph, const GraphFactors& factors,
                             const PassContext& context);

// So are relations between sizes (ir/size_guard.h), of which one that the sizes of the job do not
// fulfil is an error, as it is to PyTorch, and so is one that cannot be read, unless all sizes are
// as exported.
absl::Status CheckSizeGuards(const Graph& graph, const SymBindings& bindings,
                             const PassContext& context);

}  // namespace autosp
