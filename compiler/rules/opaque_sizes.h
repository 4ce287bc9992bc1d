// Sizes of the results of ops without a rule, where those of operands say them.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/rules/op_context.h"

namespace autosp {

// The factors of all results; nullopt: the op is not in the table, or not in this form. Nothing is
// said of what may be split: such an op needs all of its operands.
absl::StatusOr<std::optional<std::vector<FactorDims>>> FollowedSizes(OpContext& context);

// The ops of the table.
std::vector<std::string_view> OpsOfFollowedSizes();

}  // namespace autosp
