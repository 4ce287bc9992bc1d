// One dimension that several operands of an op have.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "compiler/rules/factor_table.h"

namespace autosp {

// States that `dim` and `other` are one. Where the model cut it in two ways that have no common
// refinement (24 pairs and 16 triples of 48 tokens), each keeps its factors, which are whole while
// the op runs, and `dim` becomes the one that is a part of the batch or sequence. Error: other
// sizes.
absl::Status ShareDim(FactorTable& table, const FactorDim& other, FactorDim* dim,
                      std::vector<FactorVar>* whole);

}  // namespace autosp
