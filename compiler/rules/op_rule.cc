#include "compiler/rules/op_rule.h"

#include <algorithm>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "common/check.h"
#include "compiler/ir/argument_access.h"

namespace autosp {
namespace {

std::vector<OpRule> SortedRules() {
  std::vector<OpRule> rules;
  for (auto family :
       {ElementwiseRules, ViewRules, ContractionRules, ConvolutionRules, ReductionRules,
        CreationRules, FourierRules, IndexingRules, LossRules, PoolingRules, TokenWindowRules}) {
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

bool IsLinear(const OpRule& rule, const Graph& graph, const Node& node) {
  if (!rule.linear) return false;
  // What is filled in would count once for each rank.
  if (node.op == "aten.constant_pad_nd.default") {
    return NumberArgument(node.args, 2).value_or(0) == 0;
  }
  // Parts that are cut to integers or truth values do not add up.
  if (node.op == "aten.to.dtype") {
    const DType from = graph.type(OperandsOf(node)[0]).dtype;
    const DType to = graph.type(node.outputs[0]).dtype;
    return to != DType::kBool && (IsFloating(to) || !IsFloating(from));
  }
  return true;
}

std::vector<SavedTensor> SavedTensors(const OpRule& rule, const std::vector<bool>& needs_grad) {
  std::vector<SavedTensor> saved;
  for (absl::string_view token : absl::StrSplit(
           absl::string_view(rule.saves.data(), rule.saves.size()), ' ', absl::SkipEmpty())) {
    const std::vector<absl::string_view> parts = absl::StrSplit(token, '/');
    SavedTensor tensor{.is_result = parts[0][0] == 'r'};
    size_t condition = 0;
    if (!absl::SimpleAtoi(parts[0].substr(1), &tensor.index)) continue;
    if (parts.size() > 1 && absl::SimpleAtoi(parts[1], &condition)) {
      if (condition >= needs_grad.size() || !needs_grad[condition]) continue;
    }
    saved.push_back(tensor);
  }
  return saved;
}

int64_t VjpWorkspaceBytes(const OpRule& rule, const std::vector<TensorExtent>& operands,
                          const std::vector<TensorExtent>& results) {
  int64_t largest = 0;
  for (const std::vector<TensorExtent>* side : {&operands, &results}) {
    for (const TensorExtent& tensor : *side) {
      if (!IsFloating(tensor.dtype)) continue;
      largest = std::max(largest, tensor.numel * SizeOf(tensor.dtype));
    }
  }
  int halves = rule.vjp_workspace_halves;
  if (operands.size() > 1 && operands[1].needs_grad) halves += rule.second_workspace_halves;
  if (rule.layout != ResultLayout::kElementwise) return largest * halves / 2;
  bool is_summed_in_f32 = false;
  for (const TensorExtent& operand : operands) {
    if (!operand.needs_grad || operand.numel == results[0].numel) continue;
    halves += 2;
    is_summed_in_f32 = is_summed_in_f32 || SizeOf(operand.dtype) == 2;
  }
  return largest * (halves + (is_summed_in_f32 ? 4 : 0)) / 2;
}

std::optional<size_t> SizeArgument(std::string_view op) {
  static const auto& arguments = *new std::map<std::string_view, size_t>{
      {"aten.view.default", 1},    {"aten.reshape.default", 1},  {"aten._unsafe_view.default", 1},
      {"aten.expand.default", 1},  {"aten.full.default", 0},     {"aten.ones.default", 0},
      {"aten.zeros.default", 0},   {"aten.new_ones.default", 1}, {"aten.new_zeros.default", 1},
      {"aten.new_full.default", 1}};
  const auto found = arguments.find(op);
  return found == arguments.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace autosp
