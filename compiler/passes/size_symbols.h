// The symbols of an archive that stand in the sizes of its inputs.
#pragma once

#include "absl/status/statusor.h"
#include "compiler/ir/graph.h"
#include "compiler/ir/sym_expr.h"
#include "compiler/rules/infer_factors.h"

namespace autosp {

// Values of the archive's symbols at the sizes of the job.
// Error: a size that the input cannot have.
absl::StatusOr<SymBindings> BindSymbols(const Graph& graph, const GraphFactors& factors);

}  // namespace autosp
