// What ranks measure, step by step.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace autosp {

struct ReportedMemory {
  std::string account;
  int64_t current_bytes = 0;
  int64_t peak_bytes = 0;

  bool operator==(const ReportedMemory&) const = default;
};

struct ReportedCollective {
  std::string kind;
  std::string phase;
  int64_t calls = 0;
  int64_t bytes_received = 0;
  double seconds = 0;

  bool operator==(const ReportedCollective&) const = default;
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
  std::vector<ReportedMemory> memory;
  std::vector<ReportedCollective> collectives;

  bool operator==(const StepReport&) const = default;
};

// What has become of a checkpoint of the job.
struct CheckpointNote {
  enum class Event {
    kCommitted,
    kNotWritten,  // the message says why; training goes on
    kResumed,     // training goes on after the step; 0: it begins at the first
    kSkipped,     // damaged; an older one is looked for
  };
  Event event = Event::kCommitted;
  int64_t step = 0;
  std::string path = {};
  std::string message = {};
  int64_t size_bytes = 0;
  double seconds = 0;

  bool operator==(const CheckpointNote&) const = default;
};

}  // namespace autosp
