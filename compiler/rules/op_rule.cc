#include "compiler/rules/op_rule.h"

#include <algorithm>

#include "common/check.h"

namespace autosp {
namespace {

std::vector<OpRule> SortedRules() {
  std::vector<OpRule> rules;
  for (auto family : {ElementwiseRules, ViewRules, ContractionRules, ConvolutionRules,
                      ReductionRules, CreationRules, IndexingRules, LossRules}) {
    const std::vector<OpRule> rows = family();
    rules.insert(rules.end(), rows.begin(), rows.end());
  }
  std::ranges::sort(rules, {}, &OpRule::op);
  return rules;
}

}  // namespace

const std::vector<OpRule>& AllOpRules() {
  static const std::vector<OpRule>& rules = *new std::vector<OpRule>(SortedRules());
  return rules;
}

const OpRule* FindOpRule(std::string_view op) {
  const std::vector<OpRule>& rules = AllOpRules();
  const auto row = std::ranges::lower_bound(rules, op, {}, &OpRule::op);
  return row != rules.end() && row->op == op ? &*row : nullptr;
}

}  // namespace autosp
