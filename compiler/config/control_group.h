// How much memory the control groups of this process leave it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace autosp {

// The smallest limit of the group that `groups`, a /proc/PID/cgroup, names and of those above it,
// by the files below `mount`, of version 2 or 1. None where no group has one. A container may see
// only its own group, as the topmost.
std::optional<int64_t> ControlGroupMemoryLimit(absl::string_view groups, const std::string& mount);

// Of this process.
std::optional<int64_t> ControlGroupMemoryLimit();

}  // namespace autosp
