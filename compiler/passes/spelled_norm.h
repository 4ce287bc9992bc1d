// Norms written in means, for ops whose statistics ranks take together, or that padding would
// break.
#pragma once

#include <optional>

#include "compiler/passes/graph_rewriter.h"

namespace autosp {

struct NormForm {
  IntList dims = {};               // that statistics are taken over, counted from the front
  std::optional<double> eps = {};  // added to the variance; none: nothing is
  bool is_centered = true;         // whether the mean is taken away first
};

// x / sqrt(mean(x ^ 2) + eps), of centered x where the form says so; contiguous.
ValueId Normalized(GraphRewriter& rewriter, const Node& node, ValueId x, const NormForm& form);

}  // namespace autosp
