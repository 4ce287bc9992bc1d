// Reads the file that an agent writes for a rank.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "worker/rank/rank_config.h"

namespace autosp {

// `path` holds a RankSpec in JSON. Errors name the file and the field.
absl::StatusOr<RankConfig> ReadRankSpec(const std::string& path);

}  // namespace autosp
