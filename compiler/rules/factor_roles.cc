#include "compiler/rules/factor_roles.h"

#include <algorithm>

namespace autosp {
namespace {

// In how many dimensions a tensor has the factor.
int64_t Count(const FactorDims& dims, FactorVar factor) {
  int64_t count = 0;
  for (const FactorDim& dim : dims) count += std::ranges::count(dim, factor);
  return count;
}

bool IsInAny(const std::vector<FactorDims>& all, FactorVar factor) {
  return std::ranges::any_of(all, [&](const FactorDims& dims) { return Count(dims, factor) > 0; });
}

}  // namespace

bool FactorRoles::Reduces(const std::vector<FactorVar>& run) const {
  return std::ranges::any_of(
      run, [this](FactorVar factor) { return sum.contains(factor) || max.contains(factor); });
}

bool FactorRoles::Allows(const std::vector<FactorVar>& run) const {
  return std::ranges::none_of(run, [this](FactorVar factor) { return whole.contains(factor); });
}

FactorRoles FactorRolesOf(const Graph& graph, const GraphFactors& factors, size_t node_index) {
  const FactorTable& table = factors.table;
  const Node& node = graph.nodes[node_index];
  const OpFactors& stated = factors.nodes[node_index];
  FactorRoles roles;
  const auto add = [&](const std::vector<FactorVar>& from, std::set<FactorVar>* to) {
    for (FactorVar factor : table.Resolve(from)) to->insert(factor);
  };
  add(stated.whole, &roles.whole);
  add(stated.sum, &roles.sum);
  add(stated.max, &roles.max);
  add(stated.halo, &roles.halo);
  std::set<FactorVar> generated;
  add(stated.generated, &generated);
  std::vector<FactorDims> operands;
  std::vector<FactorDims> results;
  for (ValueId operand : OperandsOf(node)) operands.push_back(factors.Of(operand));
  for (ValueId output : node.outputs) results.push_back(factors.Of(output));
  for (const std::vector<FactorDims>* side : {&operands, &results}) {
    for (const FactorDims& dims : *side) {
      for (const FactorDim& dim : dims) {
        for (FactorVar factor : dim) {
          const bool reduced = roles.sum.contains(factor) || roles.max.contains(factor);
          const bool is_lost = !IsInAny(results, factor) && !reduced;
          const bool is_new = !IsInAny(operands, factor) && !generated.contains(factor);
          if (is_lost || is_new || Count(dims, factor) > 1) roles.whole.insert(factor);
        }
      }
    }
  }
  return roles;
}

}  // namespace autosp
