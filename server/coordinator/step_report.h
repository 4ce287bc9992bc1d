// What ranks measure, step by step.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace autosp {

struct MemoryUse {
  std::string account;
  int64_t current_bytes = 0;
  int64_t peak_bytes = 0;

  bool operator==(const MemoryUse&) const = default;
};

struct CollectiveUse {
  std::string kind;
  std::string phase;
  int64_t calls = 0;
  int64_t bytes_received = 0;
  double seconds = 0;

  bool operator==(const CollectiveUse&) const = default;
};

// One finished optimizer step, of one rank or of the job as a whole.
struct StepReport {
  int64_t step = 0;
  double loss = 0;
  int64_t tokens = 0;
  double step_seconds = 0;
  double learning_rate = 0;
  std::optional<double> grad_norm;
  std::optional<double> validation_loss;
  std::vector<MemoryUse> memory;
  std::vector<CollectiveUse> collectives;

  bool operator==(const StepReport&) const = default;
};

}  // namespace autosp
