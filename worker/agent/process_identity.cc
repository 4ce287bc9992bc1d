#include "worker/agent/process_identity.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/status_macros.h"

namespace autosp::agent {
namespace {

constexpr int64_t kMaxProcFileBytes = 4096;

// Fields of /proc/<pid>/stat, counted from the one behind the name.
constexpr size_t kStateField = 0;
constexpr size_t kStartTicksField = 19;

absl::StatusOr<std::string> BootId() {
  ASSIGN_OR_RETURN(const std::string text,
                   ReadFile("/proc/sys/kernel/random/boot_id", kMaxProcFileBytes));
  return std::string(absl::StripAsciiWhitespace(text));
}

}  // namespace

std::string ProcessIdentity::ToText() const {
  return absl::StrCat(pid, " ", start_ticks, " ", boot_id, "\n");
}

absl::StatusOr<ProcessIdentity> ProcessIdentity::FromText(absl::string_view text) {
  const std::vector<std::string> parts =
      absl::StrSplit(absl::StripAsciiWhitespace(text), ' ', absl::SkipEmpty());
  ProcessIdentity identity;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &identity.pid) ||
      !absl::SimpleAtoi(parts[1], &identity.start_ticks) || identity.pid <= 1) {
    return InvalidArgument("\"", text, "\" is not a pid, a start time and a boot id");
  }
  identity.boot_id = parts[2];
  return identity;
}

absl::StatusOr<ProcessIdentity> IdentifyProcess(int64_t pid) {
  const auto stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"), kMaxProcFileBytes);
  if (!stat.ok()) return NotFound("process ", pid, " does not exist");
  // The name is in parentheses and may itself contain any character.
  const size_t name_end = stat->rfind(')');
  if (name_end == std::string::npos) return Internal("/proc/", pid, "/stat has no name");
  const std::vector<std::string> fields =
      absl::StrSplit(stat->substr(name_end + 1), ' ', absl::SkipEmpty());
  ProcessIdentity identity{.pid = pid};
  if (fields.size() <= kStartTicksField ||
      !absl::SimpleAtoi(fields[kStartTicksField], &identity.start_ticks)) {
    return Internal("/proc/", pid, "/stat has no start time");
  }
  if (fields[kStateField] == "Z" || fields[kStateField] == "X") {
    return NotFound("process ", pid, " has ended");
  }
  ASSIGN_OR_RETURN(identity.boot_id, BootId());
  return identity;
}

bool IsAlive(const ProcessIdentity& identity) {
  const auto now = IdentifyProcess(identity.pid);
  return now.ok() && *now == identity;
}

}  // namespace autosp::agent
