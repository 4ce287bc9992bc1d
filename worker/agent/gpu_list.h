// The GPUs of this node, as its ranks see them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autosp::agent {

struct GpuInfo {
  int index = 0;
  std::string name;
  int64_t memory_bytes = 0;

  bool operator==(const GpuInfo&) const = default;
};

// Runs `rank_binary --list-gpus`: the agent itself needs neither CUDA nor its driver's libraries.
// Errors carry what the program said, such as that it was built without CUDA.
absl::StatusOr<std::vector<GpuInfo>> ListGpus(const std::string& rank_binary);

// What the program prints: [{"index": 0, "name": "NVIDIA H100", "memory_bytes": 85045149696}, ...]
absl::StatusOr<std::vector<GpuInfo>> ParseGpuList(absl::string_view json);

}  // namespace autosp::agent
