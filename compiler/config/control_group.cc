#include "compiler/config/control_group.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/file.h"

namespace autosp {
namespace {

constexpr int64_t kMaxFileBytes = 1 << 20;
constexpr char kMount[] = "/sys/fs/cgroup";

// None where it says "max" or there is no such file.
std::optional<int64_t> ReadLimit(const std::string& path) {
  const auto text = ReadFile(path, kMaxFileBytes);
  int64_t bytes = 0;
  if (!text.ok() || !absl::SimpleAtoi(absl::StripAsciiWhitespace(*text), &bytes) || bytes <= 0) {
    return std::nullopt;
  }
  return bytes;
}

// Of the groups from `group`, "/a/b", up to the topmost, "".
std::optional<int64_t> SmallestLimit(const std::string& mount, absl::string_view group,
                                     absl::string_view file) {
  std::optional<int64_t> smallest;
  while (true) {
    const std::optional<int64_t> limit = ReadLimit(absl::StrCat(mount, group, "/", file));
    if (limit && (!smallest || *limit < *smallest)) smallest = limit;
    if (group.empty()) return smallest;
    group = group.substr(0, group.rfind('/'));
  }
}

// "/a/b", or "" for the topmost. A group outside of what a container sees ("/../b") has no files
// there.
absl::string_view GroupOf(absl::string_view path) {
  const bool is_usable = path.size() > 1 && path[0] == '/' && !absl::StartsWith(path, "/..");
  return is_usable ? path : "";
}

}  // namespace

std::optional<int64_t> ControlGroupMemoryLimit(absl::string_view groups, const std::string& mount) {
  // "HIERARCHY:CONTROLLERS:PATH"; of version 2 the hierarchy is 0, and it names no controllers.
  absl::string_view group;
  absl::string_view memory_group;
  for (const absl::string_view line : absl::StrSplit(groups, '\n')) {
    const std::vector<absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    if (parts[0] == "0") group = GroupOf(parts[2]);
    const std::vector<absl::string_view> controllers = absl::StrSplit(parts[1], ',');
    if (std::ranges::find(controllers, "memory") != controllers.end())
      memory_group = GroupOf(parts[2]);
  }
  const std::optional<int64_t> limit = SmallestLimit(mount, group, "memory.max");
  if (limit) return limit;
  return SmallestLimit(absl::StrCat(mount, "/memory"), memory_group, "memory.limit_in_bytes");
}

std::optional<int64_t> ControlGroupMemoryLimit() {
  return ControlGroupMemoryLimit(ReadFile("/proc/self/cgroup", kMaxFileBytes).value_or(""), kMount);
}

}  // namespace autosp
