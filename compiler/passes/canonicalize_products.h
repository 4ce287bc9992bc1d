// The part of canonicalize that deals with products of matrices: each becomes a matmul, or a linear
// layer.
#pragma once

#include "compiler/passes/canonicalize_losses.h"

namespace autosp {

// Whether an argument is that number, whatever the sizes of the job. canonicalize.cc
bool IsLiteral(const Node& node, size_t index, double value);

// By op.
const RewriteTable& ProductRewrites();
const RewriteTable& EinsumRewrites();  // canonicalize_einsum.cc
const RewriteTable& CellRewrites();    // canonicalize_cells.cc

}  // namespace autosp
