#include "compiler/rules/shared_dim.h"

#include <algorithm>

#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

bool IsOfRoot(const FactorTable& table, const FactorDim& dim) {
  return std::ranges::any_of(table.Resolve(dim),
                             [&](FactorVar factor) { return table.IsPartOfRoot(factor); });
}

}  // namespace

absl::Status ShareDim(FactorTable& table, const FactorDim& other, FactorDim* dim,
                      std::vector<FactorVar>* whole) {
  const absl::Status unified = table.Unify(*dim, other);
  if (unified.ok() || table.Size(*dim) != table.Size(other)) return unified;
  AppendFactors(*dim, whole);
  AppendFactors(other, whole);
  if (!IsOfRoot(table, *dim) && IsOfRoot(table, other)) *dim = other;
  return absl::OkStatus();
}

}  // namespace autosp
