// Products of rows with matrices that are chosen for each row: mixtures of experts.
//
//   autosp.expert_mm(x, weight, experts)
//     x [..., K], weight [E, K, N], experts i64 [...]: y[r] = x[r] times weight[experts[r]]
//   autosp.expert_mm_weight_grad(grad, x, experts, E, transposed)
//     grad [..., N]: dw[e] = the sum of outer(x[r], grad[r]) over rows r with experts[r] == e, as
//     [E, K, N]; transposed, as [E, N, K]
//
// What exporters write sorts rows by expert and multiplies groups of rows (unsort-rows). Here the
// order of rows is a matter of the kernel, and each row is computed by itself: ranks have their
// own. That an index names an expert is checked as ranks run.
#pragma once

#include <cstdint>
#include <string_view>

#include "compiler/rules/op_rule.h"

namespace autosp {

inline constexpr std::string_view kExpertMm = "autosp.expert_mm";
inline constexpr std::string_view kExpertMmWeightGrad = "autosp.expert_mm_weight_grad";

// As exported: (rows sorted by group, matrices, where groups end, bias, dtype).
inline constexpr std::string_view kGroupedMm = "aten._grouped_mm.default";

// The order of rows by expert, and rows in that order.
int64_t ExpertMmWorkspace(const Extents& operands, const Extents& results);
// Operands are (grad, x, experts).
int64_t ExpertMmWeightGradWorkspace(const Extents& operands);

// Two operations for each element of a row and column of its matrix.
OpFlops ExpertMmFlops(const OpCall& call);

absl::StatusOr<OpFactors> InferExpertMm(OpContext& context);
absl::StatusOr<OpFactors> InferGroupedMm(OpContext& context);

}  // namespace autosp
