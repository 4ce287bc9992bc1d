// What an op may do with a shard of each of its factors: what its rule says, and what follows.
#pragma once

#include <set>
#include <vector>

#include "compiler/rules/infer_factors.h"

namespace autosp {

// In representatives. A factor in no set is parallel: a shard of the operands gives the same shard
// of the results.
struct FactorRoles {
  std::set<FactorVar> whole;
  std::set<FactorVar> sum;
  std::set<FactorVar> max;
  std::set<FactorVar> halo;  // of `whole`: unless ranks exchange the borders of their shards

  bool Reduces(const std::vector<FactorVar>& run) const;
  bool Allows(const std::vector<FactorVar>& run) const;
};

// Whole are also: a factor that no result has and that is not reduced; one that no operand has and
// that cannot be made in shards; one that two dimensions of a tensor share.
FactorRoles FactorRolesOf(const Graph& graph, const GraphFactors& factors, size_t node);

}  // namespace autosp
