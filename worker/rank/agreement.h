// What ranks have to tell each other beside the tensors of the program.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/collectives/collectives.h"

namespace autosp {

// Longer texts lose their end.
inline constexpr size_t kMaxAgreementBytes = 8 << 10;

// The texts of all ranks, by rank, the same everywhere. `world` is the group of all ranks in their
// order; null: there is one rank.
absl::StatusOr<std::vector<std::string>> GatherTexts(Collectives* world, absl::string_view text);

}  // namespace autosp
