// Whom a rank tells what it does.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/verification_result.h"

namespace autosp {

// One finished optimizer step.
struct StepInfo {
  struct Memory {
    int64_t current_bytes = 0;
    int64_t peak_bytes = 0;
  };
  struct Collective {
    std::string kind;
    std::string phase;
    int64_t calls = 0;
    int64_t bytes_received = 0;
    double seconds = 0;
  };

  int64_t step = 0;  // counts from 1
  double loss = 0;
  int64_t tokens = 0;  // of the whole job, padding included
  double step_seconds = 0;
  double learning_rate = 0;
  std::optional<double> grad_norm;
  std::optional<double> validation_loss;
  std::map<std::string, Memory> memory;  // by account
  std::vector<Collective> collectives;
};

struct OutputInfo {
  std::string kind;  // "weights", "metrics"
  std::string path;
  std::string sha256;
  int64_t size_bytes = 0;
};

enum class CheckpointEvent {
  kCommitted,   // it is whole and on disk
  kNotWritten,  // what went wrong is in the message; training goes on
  kResumed,     // training goes on after its step; 0: there is none, it begins at the first
  kSkipped,     // it was damaged and an older one is looked for
};

// What has become of a checkpoint. Rank 0 speaks for all.
struct CheckpointInfo {
  CheckpointEvent event = CheckpointEvent::kCommitted;
  int64_t step = 0;
  std::string path = {};
  std::string message = {};
  int64_t size_bytes = 0;  // of all ranks
  double seconds = 0;      // from the copy to the commit
};

// Why a rank cannot go on.
struct FailureInfo {
  absl::Status status;
  int64_t step = 0;           // in which it happened; 0: outside of a step
  bool is_peer_lost = false;  // another rank is the cause
};

// Calls do not wait for the other side, but for Close.
class RankReporter {
 public:
  virtual ~RankReporter() = default;

  virtual void Hello(const std::string& program_digest) = 0;
  virtual void Step(const StepInfo& info) = 0;
  virtual void Checkpoint(const CheckpointInfo& info) = 0;
  virtual void Finished(const std::vector<OutputInfo>& outputs) = 0;
  // Finished, of an attempt that verifies.
  virtual void Verified(const VerificationResult& result) = 0;
  virtual void Failed(const FailureInfo& info) = 0;
  // Returns when everything has arrived; an error when that cannot be known.
  virtual absl::Status Close() = 0;
};

}  // namespace autosp
