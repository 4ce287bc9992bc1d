// Tensors that a graph fills with a number.
#pragma once

#include <optional>

#include "compiler/ir/argument_access.h"
#include "compiler/ir/graph.h"

namespace autosp {

// The number that full, full_like or new_full fills its result with; nullopt: another op.
inline std::optional<double> FilledWith(const Node& node) {
  if (node.op == "aten.full.default" || node.op == "aten.full_like.default") {
    return NumberArgument(node.args, 1);
  }
  return node.op == "aten.new_full.default" ? NumberArgument(node.args, 2) : std::nullopt;
}

}  // namespace autosp
