// Sizes that the model cuts into parts, where the job has others.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "compiler/passes/pass.h"

namespace autosp {

// Gives a root (batch or sequence) the size of the job. Of one that the model cuts into parts, one
// part changes:
// - the one that the archive writes as an expression: [b, 8, n // 8, d] of a dynamic length n, or
// - the one that no parameter and no other input has, where each of the others is in one, or
// - the one that a view gives what is left (-1), or
// - the first, which is how many blocks there are. `x.view(b, n // 6, 6, d)` and
//   `x.view(b, 8, n // 8, d)` are one node where n was 48: a warning names it, and both readings.
//
// `key` is what the job file calls the size. Requires: the graph has the types of the export.
// Error: the size is no multiple of the parts that stay.
absl::Status ResizeRoot(const Graph& graph, GraphFactors& factors, FactorVar root, int64_t size,
                        const char* key, const PassContext& context);

}  // namespace autosp
