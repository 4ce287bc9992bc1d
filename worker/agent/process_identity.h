// A process, such that another one that gets its number later is not taken for it.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autosp::agent {

struct ProcessIdentity {
  int64_t pid = 0;
  int64_t start_ticks = 0;  // Since boot; field 22 of /proc/<pid>/stat.
  std::string boot_id = {};

  friend bool operator==(const ProcessIdentity&, const ProcessIdentity&) = default;

  // "4711 918273 5c2d...", for a file.
  std::string ToText() const;
  static absl::StatusOr<ProcessIdentity> FromText(absl::string_view text);
};

// NOT_FOUND when no such process exists, a zombie included.
absl::StatusOr<ProcessIdentity> IdentifyProcess(int64_t pid);

bool IsAlive(const ProcessIdentity& identity);

}  // namespace autosp::agent
