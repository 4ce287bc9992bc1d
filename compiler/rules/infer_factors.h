// Finds the factors of every dimension of a graph, op by op, from the roles of its inputs.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/config/job_spec.h"
#include "compiler/ir/graph.h"
#include "compiler/rules/op_rule.h"

namespace autosp {

// What each dimension of each user input stands for, by input name.
using InputRoles = std::map<std::string, std::vector<DimRole>, std::less<>>;

struct GraphFactors {
  FactorTable table;
  ValueFactors values;           // by value
  std::vector<OpFactors> nodes;  // by node
  FactorVar batch = -1;          // roots; -1 where no input has such a dimension
  FactorVar seq = -1;
  std::vector<std::string> warnings;  // ops without a rule, by name and place

  FactorDims Of(ValueId value) const { return table.Resolve(values[value.index]); }
};

// Errors: an input without a role, two inputs that disagree on the batch or sequence size, and a
// result whose factors do not multiply to the size that the archive states (a wrong rule, or an
// archive that was tampered with); each names the node.
absl::StatusOr<GraphFactors> InferFactors(const Graph& graph, const InputRoles& roles);

}  // namespace autosp
