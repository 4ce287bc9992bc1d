#include "compiler/config/cluster_spec.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "common/file.h"
#include "compiler/config/control_group.h"

namespace autosp {
namespace {

constexpr int64_t kMaxProcFileBytes = 1 << 20;
constexpr int64_t kFallbackMemoryBytes = int64_t{1} << 30;

// The processors that this process may run on, which a container may have made fewer.
int64_t CountHardwareThreads() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) return CPU_COUNT(&allowed);
  return std::max<int64_t>(1, sysconf(_SC_NPROCESSORS_ONLN));
}

// MemTotal of /proc/meminfo, which is in KiB.
std::optional<int64_t> ReadMemTotal() {
  const auto text = ReadFile("/proc/meminfo", kMaxProcFileBytes);
  if (!text.ok()) return std::nullopt;
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    int64_t kib = 0;
    if (words.size() >= 2 && words[0] == "MemTotal:" && absl::SimpleAtoi(words[1], &kib)) {
      return kib * 1024;
    }
  }
  return std::nullopt;
}

}  // namespace

int64_t ClusterSpec::num_devices() const {
  int64_t num_devices = 0;
  for (const NodeSpec& node : nodes) num_devices += node.devices;
  return num_devices;
}

ClusterSpec LocalCluster() {
  NodeSpec node;
  node.name = "local";
  node.devices = CountHardwareThreads();
  int64_t memory_bytes = ReadMemTotal().value_or(kFallbackMemoryBytes);
  memory_bytes = std::min(memory_bytes, ControlGroupMemoryLimit().value_or(memory_bytes));
  node.device_memory_bytes = memory_bytes / node.devices;
  ClusterSpec cluster;
  cluster.nodes.push_back(std::move(node));
  return cluster;
}

std::optional<double> PeakFlops(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::kCpu:
      return std::nullopt;
    case DeviceKind::kA100_40gb:
    case DeviceKind::kA100_80gb:
      return 312e12;
    case DeviceKind::kH100_80gb:
    case DeviceKind::kH200_141gb:
      return 989e12;
  }
  return std::nullopt;
}

bool IsHopper(DeviceKind kind) {
  return kind == DeviceKind::kH100_80gb || kind == DeviceKind::kH200_141gb;
}

int64_t LibraryBytes(DeviceKind kind) {
  if (kind == DeviceKind::kCpu) return 0;
  // As at::cuda::getChosenWorkspaceSize: 8 x 4 MiB, or 2 x 4 MiB and 8 x 16 KiB.
  return IsHopper(kind) ? int64_t{8} << 22 : (int64_t{2} << 22) + (int64_t{8} << 14);
}

absl::string_view ToString(DeviceKind value) {
  switch (value) {
    case DeviceKind::kCpu:
      return "cpu";
    case DeviceKind::kA100_40gb:
      return "a100-40gb";
    case DeviceKind::kA100_80gb:
      return "a100-80gb";
    case DeviceKind::kH100_80gb:
      return "h100-80gb";
    case DeviceKind::kH200_141gb:
      return "h200-141gb";
  }
  return "";
}

}  // namespace autosp
